import type { DrainState } from "@cloudpods/shared/drain-lifecycle";
import type { Database, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { cordonNode, recordChange } from "../nodes/change-node.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { decideDrain, type DrainAction } from "./decide-drain.ts";
import { tidyMoves } from "../moves/tidy-moves.ts";
import { advanceDrain, doUnlessChanged, selectDrains, type Drain } from "./drain.ts";
import { answerForLostHost } from "./answer-for-lost-host.ts";
import { orNote } from "./or-note.ts";
import { abortFromDrain, claimForDrain, releaseFromDrain, settleDrainPod, startFromDrain } from "./place-drain-pod.ts";
import { readDrainFacts } from "./read-drain-facts.ts";
import { giveUpPod, rescuePod } from "./rescue-pod.ts";
import { returnPods } from "./return-pods.ts";
import { cordonOfDrain } from "./start-drain.ts";

/** What driving drains needs. */
export interface DrainDriver {
  readonly db: Database;
  readonly fleet: FleetView;
  /** Work was queued and a command for the host perhaps with it. */
  readonly onQueued: (taskId: string, nodeId: string) => void;
}

/** A drain whose decision gives nothing to do waits for something to happen. */
const roundsMax = 20;

/**
 * Carries every drain as far as it goes at present. Each action is a transaction of its own and looks again at what it
 * changes, so the driver may die between any two and go on from the rows. Of several drivers, whoever decided before
 * another one did something leaves the drain to that one. What cannot be done about one pod or one host keeps no other
 * waiting.
 * @returns how many things were done
 * @throws AggregateError of what could not be done, after everything else was
 */
export async function driveDrains(driver: DrainDriver, now: () => number = Date.now): Promise<number> {
  const failures: unknown[] = [];
  await orNote(failures, () => tidyMoves(driver.db));
  const open = await driver.db.query<Drain>(sql`${selectDrains} WHERE d.finished_at IS NULL ORDER BY d.id`);
  let done = 0;
  for (const drain of open) done += (await orNote(failures, () => driveOne(driver, drain, now, failures))) ?? 0;
  done += await returnPods(driver, failures);
  if (failures.length > 0) throw new AggregateError(failures, "drains could not be carried on");
  return done;
}

async function driveOne(driver: DrainDriver, drain: Drain, now: () => number, failures: unknown[]): Promise<number> {
  const { db } = driver;
  let done = 0;
  let current = drain;
  if (drain.kind === "evacuation") await answerForLostHost(db, drain.nodeId);
  for (let round = 0; round < roundsMax; round++) {
    const facts = await db.transaction((tx) => readDrainFacts(tx, current));
    const actions = decideDrain(facts, now());
    if (actions.length === 0) return done;
    const failedBefore = failures.length;
    let { version } = current;
    for (const action of actions) {
      const after = await orNote(failures, () =>
        doUnlessChanged(db, { ...current, version }, (tx) => apply(driver, tx, current, action)),
      );
      if (after === "changed") return done;
      if (after?.did !== undefined) driver.onQueued(after.did.taskId, after.did.nodeId);
      version = after?.version ?? version;
      done += 1;
    }
    // The same would be decided again.
    if (failures.length > failedBefore) return done;
    const [next] = await db.query<Drain>(sql`${selectDrains} WHERE d.id = ${drain.id} AND d.finished_at IS NULL`);
    if (next === undefined) return done;
    current = next;
  }
  return done;
}

async function apply(
  { fleet }: DrainDriver,
  tx: Transaction,
  drain: Drain,
  action: DrainAction,
): Promise<{ taskId: string; nodeId: string } | undefined> {
  switch (action.kind) {
    case "settle":
      await settleDrainPod(tx, drain, action.podId, action);
      return undefined;
    case "claim":
      await claimForDrain(tx, fleet, drain, action.podId);
      return undefined;
    case "release":
      await releaseFromDrain(tx, drain, action.podId, action.state, action.why);
      return undefined;
    case "abort":
      return await abortFromDrain(tx, drain, action.podId);
    case "start":
      return drain.kind === "evacuation"
        ? await rescuePod(tx, fleet, drain, action.podId)
        : await startFromDrain(tx, drain, action.podId, action.byArchive);
    case "give-up":
      await giveUpPod(tx, drain, action.podId);
      return undefined;
    case "advance": {
      const state = await advanceDrain(tx, drain, action.event, action.outcome);
      if (state !== "moving") await endDrain(tx, drain, state, action.outcome);
      return undefined;
    }
  }
}

async function endDrain(tx: Transaction, drain: Drain, state: DrainState, outcome: string): Promise<void> {
  const by = { actor: systemActor("drains"), requestId: drain.requestId };
  if (drain.kind === "drain" && state !== "cancelled" && (await mustStayClosed(tx, drain, state)))
    await cordonNode(tx, drain.nodeId, cordonOfDrain(drain), by);
  await recordChange(tx, drain.nodeId, by, {
    action: `node.${drain.kind}-ended`,
    kind: drain.kind === "drain" ? "DRAIN_ENDED" : "EVACUATION_ENDED",
    message: `${state}: ${outcome}`,
    detail: { drainId: drain.id, state },
  });
}

/** Whether anything came of it, so that a host which was cordoned for another reason or for a while has to stay closed. Locks it then. */
async function mustStayClosed(tx: Transaction, { id, nodeId, reason }: Drain, state: DrainState): Promise<boolean> {
  const rows = await tx.query(sql`
    SELECT FROM nodes n WHERE n.id = ${nodeId} AND n.removed_at IS NULL AND (n.cordon_reason <> ${cordonOfDrain({ reason }).reason} OR n.cordoned_until IS NOT NULL)
      AND (${state === "drained"} OR EXISTS (SELECT FROM node_drain_pods p WHERE p.drain_id = ${id} AND p.state = 'moved'))
    FOR NO KEY UPDATE OF n`);
  return rows.length > 0;
}
