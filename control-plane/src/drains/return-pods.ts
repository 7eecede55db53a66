import { lockOpenMove, type MoveState } from "../moves/move.ts";
import type { Blocker } from "../moves/plan-moves.ts";
import { isBusy, requireMovable, startReserved } from "../moves/request-move.ts";
import { reserveMove } from "../moves/reserve-move.ts";
import { pauseAfter } from "../moves/retry-pause.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { changeDrainPod, doUnlessChanged, selectDrains, type Drain } from "./drain.ts";
import type { DrainDriver } from "./drive-drains.ts";
import { orNote } from "./or-note.ts";
import { blockerFrom, whyUndone } from "./place-drain-pod.ts";

interface ReturningPod {
  readonly podId: string;
  readonly state: "moved" | "returning";
  readonly moveId: string;
  readonly move: MoveState | null;
  readonly isBusy: boolean;
  /** Tries in vain. */
  readonly tries: number;
  /** Those of them for which the pod may have been stopped. */
  readonly movesInVain: number;
  /** The pause after the last of them is over. */
  readonly isDue: boolean;
}

/** With ever longer pauses eight hours and a half; after that nobody waits for the pod at home any more. */
const triesMax = 10;
/** Of moves that came to nothing: each may have cost the customer an outage. */
const movesInVainMax = 3;

/**
 * Brings pods home to hosts that are open again, where the drain was asked to. Nothing was kept for them there: the host took
 * no pods meanwhile, so its room is free, and what others have taken since it was opened is theirs. Who finds none, or whose
 * move comes to nothing, is tried again now and then, and in the end stays where it is.
 * @param failures of single pods; those after them have their turn all the same
 * @returns how many things were done
 */
export async function returnPods(driver: DrainDriver, failures: unknown[]): Promise<number> {
  const { db } = driver;
  const drains = await db.query<Drain>(sql`
    ${selectDrains} JOIN node_status s ON s.node_id = n.id
    WHERE d.return_home AND d.finished_at IS NOT NULL AND d.returned_at IS NULL AND n.schedulable AND s.state = 'online' ORDER BY d.id`);
  let done = 0;
  for (const drain of drains) done += (await orNote(failures, () => returnToOne(driver, drain, failures))) ?? 0;
  return done;
}

async function returnToOne(driver: DrainDriver, drain: Drain, failures: unknown[]): Promise<number> {
  const { db } = driver;
  const pods = await db.query<ReturningPod>(sql`
    SELECT d.pod_id AS "podId", d.state, d.move_id AS "moveId", m.state AS move, d.return_tries AS tries,
      cardinality(array_positions(d.failed_targets, ${drain.nodeId}::uuid)) AS "movesInVain",
      d.return_tries = 0 OR d.updated_at <= now() - ${pauseAfter(sql`d.return_tries - 1`)} AS "isDue", EXISTS (
      SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = d.pod_id AND t.state NOT IN ('succeeded', 'failed', 'cancelled'))
      OR EXISTS (SELECT FROM cloud_pod_moves o WHERE o.pod_id = d.pod_id AND o.state IN ('reserved', 'moving')) AS "isBusy"
    FROM node_drain_pods d LEFT JOIN cloud_pod_moves m ON m.id = d.move_id
    WHERE d.drain_id = ${drain.id} AND d.state IN ('moved', 'returning') ORDER BY d.pod_id`);
  if (pods.length === 0)
    await doUnlessChanged(db, drain, (tx) =>
      tx.execute(sql`UPDATE node_drains SET returned_at = now() WHERE id = ${drain.id}`),
    );
  const isUnderWay = ({ state, move }: ReturningPod) =>
    state === "returning" && (move === "moving" || move === "reserved");
  let running = pods.filter(isUnderWay).length;
  let done = 0;
  let { version } = drain;
  for (const pod of pods) {
    const isReturning = pod.state === "returning";
    if (isReturning ? isUnderWay(pod) : !pod.isDue || pod.isBusy || running >= drain.maxParallel) continue;
    const after = await orNote(failures, () =>
      doUnlessChanged(db, { ...drain, version }, (tx) =>
        isReturning ? noteReturn(tx, drain, pod) : beginReturn(driver, tx, drain, pod),
      ),
    );
    if (after === "changed") return done;
    if (after?.did !== undefined) driver.onQueued(after.did.taskId, after.did.nodeId);
    version = after?.version ?? version;
    if (!isReturning) running += 1;
    done += 1;
  }
  return done;
}

/** Somebody who has moved it by hand since wants it where it is; another drain only wanted it away from where it was. */
async function isWhereItWent(tx: Transaction, { id }: Drain, pod: Pod): Promise<boolean> {
  const byHand = await tx.query(sql`
    SELECT FROM node_drain_pods d JOIN cloud_pod_moves m ON m.id = d.move_id
    JOIN cloud_pod_moves later ON later.pod_id = d.pod_id AND later.id > m.id AND later.purpose = 'migrate' AND later.state = 'moved'
    WHERE d.drain_id = ${id} AND d.pod_id = ${pod.id}`);
  return byHand.length === 0;
}

async function noteReturn(tx: Transaction, drain: Drain, pod: ReturningPod): Promise<undefined> {
  const { podId, moveId, movesInVain } = pod;
  if (pod.move === "moved") {
    await changeDrainPod(tx, drain.id, podId, { state: "returned" });
    return;
  }
  const { toNodeId, blocker } = await whyUndone(tx, moveId);
  // What an operator has called back is not begun again.
  const isLast = blocker.code === "CANCELLED" || movesInVain + 1 >= movesInVainMax;
  await noteVain(tx, drain, pod, { isLast, blocker, failedTarget: toNodeId });
}

/** It stays where it is: until the next try, or for good. */
async function noteVain(
  tx: Transaction,
  drain: Drain,
  { podId, tries }: ReturningPod,
  { isLast, ...why }: { readonly isLast: boolean; readonly blocker: Blocker; readonly failedTarget?: string },
): Promise<void> {
  const state = isLast || tries + 1 >= triesMax ? "stayed" : "moved";
  await changeDrainPod(tx, drain.id, podId, { state, ...why, returnFailed: true });
}

async function beginReturn(
  { fleet }: DrainDriver,
  tx: Transaction,
  drain: Drain,
  returning: ReturningPod,
): Promise<{ taskId: string; nodeId: string } | undefined> {
  const { podId } = returning;
  const pod = await lockPodById(tx, podId);
  // Whoever is just being moved may come home after that, or has been told to be elsewhere.
  if ((await lockOpenMove(tx, podId)) !== undefined) return undefined;
  if (pod.nodeId === drain.nodeId || pod.nodeId === null || !(await isWhereItWent(tx, drain, pod))) {
    await changeDrainPod(tx, drain.id, podId, { state: "gone" });
    return undefined;
  }
  try {
    if (await isBusy(tx, podId)) return undefined;
    requireMovable(pod);
    const move = await reserveMove(tx, fleet, pod, {
      purpose: "return",
      targetNodeId: drain.nodeId,
      reason: `home after the drain: ${drain.reason}`,
      requestedBy: drain.requestedBy,
    });
    const task = await startReserved(tx, pod, move, drain.requestId, move.runs);
    await changeDrainPod(tx, drain.id, podId, { state: "returning", moveId: move.id, blocker: null });
    return { taskId: task.id, nodeId: pod.nodeId };
  } catch (error) {
    await noteVain(tx, drain, returning, { isLast: false, blocker: blockerFrom(error) });
    return undefined;
  }
}
