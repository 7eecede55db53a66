import type { DrainPodState } from "@cloudpods/shared/drain-lifecycle";
import { DomainError } from "@cloudpods/shared/errors";
import { expectedCost } from "../moves/expected-downtime.ts";
import { lockMove, lockOpenMove, type Move } from "../moves/move.ts";
import { noPlace } from "../moves/no-place.ts";
import type { Blocker } from "../moves/plan-moves.ts";
import { blockerOf, readHistory } from "../moves/read-surroundings.ts";
import { isBusy, startReserved } from "../moves/request-move.ts";
import { reserveMove, shallRun } from "../moves/reserve-move.ts";
import { releaseMove } from "../moves/switch-place.ts";
import { isRecallable, isUntouched } from "../moves/untouched-move.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { lockPodById } from "../pods/pod.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { NoCapacityError } from "../scheduling/no-capacity.ts";
import { askToEnd } from "../tasks/change-task.ts";
import { taskColumns, type Task } from "../tasks/task.ts";
import { changeDrainPod, type Drain } from "./drain.ts";

/** Looks for a place for a pod of the host and claims it, or writes down what is in the way. */
export async function claimForDrain(tx: Transaction, fleet: FleetView, drain: Drain, podId: string): Promise<void> {
  const pod = await lockPodById(tx, podId);
  const [row] = await tx.query<{ failedTargets: string[] }>(
    sql`SELECT failed_targets AS "failedTargets" FROM node_drain_pods WHERE drain_id = ${drain.id} AND pod_id = ${podId}`,
  );
  // What it was when the decision was made; the next pass sees what it is now.
  if (pod.nodeId !== drain.nodeId || (await lockOpenMove(tx, podId)) !== undefined) return;
  const blocker = blockerOf(pod, true, undefined);
  if (blocker !== undefined) return await changeDrainPod(tx, drain.id, podId, { state: "blocked", blocker });
  try {
    const { reason, requestedBy } = drain;
    const except = row?.failedTargets ?? [];
    const history = await readHistory(tx);
    const move = await reserveMove(tx, fleet, pod, {
      purpose: "drain",
      except,
      reason: `drain: ${reason}`,
      requestedBy,
    });
    const { downtimeMs } = expectedCost(history, move);
    await changeDrainPod(tx, drain.id, podId, {
      state: "claimed",
      moveId: move.id,
      blocker: null,
      expectedDowntimeMs: downtimeMs,
    });
  } catch (error) {
    await changeDrainPod(tx, drain.id, podId, {
      state: "blocked",
      blocker: await afterFailure(tx, drain, podId, blockerFrom(error)),
    });
  }
}

/** What an operator is told of a pod that found no place. @throws whatever is no refusal */
export function blockerFrom(error: unknown): Blocker {
  if (error instanceof NoCapacityError) return noPlace(error.verdict);
  if (error instanceof DomainError) return { code: error.code, message: error.message };
  throw error;
}

/** Why a pod has no place, with what has become of its move before that: the one is often all because of the other. */
export async function afterFailure(tx: Transaction, drain: Drain, podId: string, blocker: Blocker): Promise<Blocker> {
  const [past] = await tx.query<{ code: string; message: string | null; node: string }>(sql`
    SELECT m.error_code AS code, m.error_message AS message, n.name AS node
    FROM node_drain_pods d JOIN cloud_pod_moves m ON m.id = d.move_id JOIN nodes n ON n.id = m.to_node_id
    WHERE d.drain_id = ${drain.id} AND d.pod_id = ${podId} AND m.state = 'undone' AND m.error_code IS NOT NULL`);
  if (past === undefined) return blocker;
  const before = past.message === null ? past.code : `${past.code}, ${past.message}`;
  return { code: blocker.code, message: `${blocker.message} Before that it failed on ${past.node}: ${before}` };
}

/** The move of a pod that is not over, locked; not one that began since the drain's own has ended. */
async function lockOwnMove(tx: Transaction, drain: Drain, podId: string): Promise<Move | undefined> {
  const [row] = await tx.query<{ moveId: string | null }>(
    sql`SELECT move_id AS "moveId" FROM node_drain_pods WHERE drain_id = ${drain.id} AND pod_id = ${podId}`,
  );
  const move = await lockOpenMove(tx, podId);
  return move?.id === row?.moveId ? move : undefined;
}

/** Gives the place of a pod back that was only kept. */
export async function releaseFromDrain(
  tx: Transaction,
  drain: Drain,
  podId: string,
  state: "pending" | "left",
  why?: Blocker,
): Promise<void> {
  await lockPodById(tx, podId);
  const move = await lockOwnMove(tx, drain, podId);
  if (move?.state === "reserved") {
    await releaseMove(tx, move, {
      code: "PLACE_GIVEN_BACK",
      message: "The place is not needed or its host takes no pods any more.",
    });
  }
  await changeDrainPod(tx, drain.id, podId, { state, ...(why === undefined ? {} : { blocker: why }) });
}

/**
 * Begins the move of a pod to its claimed place. `byArchive`: it is stopped by force if need be and restored there.
 * @returns the task; undefined when other work came first
 */
export async function startFromDrain(
  tx: Transaction,
  drain: Drain,
  podId: string,
  byArchive: boolean,
): Promise<{ taskId: string; nodeId: string } | undefined> {
  const pod = await lockPodById(tx, podId);
  const move = await lockOwnMove(tx, drain, podId);
  if ((await isBusy(tx, podId)) || move?.state !== "reserved" || pod.nodeId !== drain.nodeId) return undefined;
  if (byArchive) {
    await tx.execute(sql`
      UPDATE cloud_pod_moves SET strategy = 'backup-restore' WHERE id = ${move.id} AND archive_storage IS NOT NULL
        AND EXISTS (SELECT FROM node_claims k WHERE k.pod_id = ${podId} AND k.generation = ${move.toGeneration} AND k.disk_gb > 0)`);
  }
  const forceAt = drain.onDeadline === "stop-and-restore" ? drain.deadlineAt : undefined;
  const task = await startReserved(tx, pod, move, drain.requestId, await shallRun(tx, pod), forceAt);
  await changeDrainPod(tx, drain.id, podId, { state: "moving" });
  return { taskId: task.id, nodeId: drain.nodeId };
}

/**
 * Ends the move of a pod that waits for its host, or whose host is back. Should its turn come in this very moment, the host
 * takes back what it has begun.
 * @returns the task; undefined when it has ended, is being taken back already, or the pod has changed hands
 */
export async function abortFromDrain(
  tx: Transaction,
  drain: Drain,
  podId: string,
): Promise<{ taskId: string; nodeId: string } | undefined> {
  await lockPodById(tx, podId);
  const move = await lockOwnMove(tx, drain, podId);
  if (move === undefined) return undefined;
  const mayEnd = drain.kind === "evacuation" ? isRecallable : isUntouched;
  const [task] = await tx.query<Task>(sql`
    SELECT ${taskColumns} FROM cloud_pod_provisioning_tasks t JOIN cloud_pod_moves m ON m.task_id = t.id
    WHERE m.id = ${move.id} AND ${mayEnd} FOR UPDATE OF t`);
  if (task === undefined) return undefined;
  const { nodeId = move.fromNodeId } = await askToEnd(tx, task);
  return { taskId: task.id, nodeId };
}

/** Failures that say something about the moment and nothing about the host that was chosen. */
const innocentCodes = new Set([
  "TARGET_CORDONED",
  "TARGET_NOT_ONLINE",
  "TARGET_WITHOUT_QUORUM",
  "CLAIM_OUTDATED",
  // It ran again, as after a boot of its host.
  "ARCHIVE_OUTDATED",
  "CLAIM_LOST",
  "MOVE_OUTDATED",
  // The host that is emptied had other archives to make.
  "EXPIRED",
  "LOCKED",
  "CANCELLED",
  "POD_DESTROYED",
  // The next try takes another backup.
  "BACKUP_DAMAGED",
]);

/** The archive was made before; of one that the move makes itself it may be the target that cannot read it. */
const isArchivesFault = ({ kind }: Drain, code: string): boolean =>
  kind === "evacuation" && code === "ARCHIVE_UNREADABLE";

/** A guest that does not shut down says nothing about the host that was chosen: it is stopped when time is up. */
const isGuestsFault = ({ onDeadline }: Drain, code: string): boolean =>
  onDeadline === "stop-and-restore" && code === "SHUTDOWN_TIMEOUT";

/** Notes how the move of a pod has ended. */
export async function settleDrainPod(
  tx: Transaction,
  drain: Drain,
  podId: string,
  { state, why }: { readonly state: DrainPodState; readonly why?: Blocker },
): Promise<void> {
  const [row] = await tx.query<{ state: string; moveId: string | null }>(
    sql`SELECT state, move_id AS "moveId" FROM node_drain_pods WHERE drain_id = ${drain.id} AND pod_id = ${podId}`,
  );
  if (row?.state !== "moving" || row.moveId === null || state === "moved" || why !== undefined)
    return await changeDrainPod(tx, drain.id, podId, { state, ...(why === undefined ? {} : { blocker: why }) });
  const { toNodeId, blocker } = await whyUndone(tx, row.moveId);
  const { code } = blocker;
  await changeDrainPod(tx, drain.id, podId, {
    state,
    blocker,
    ...(innocentCodes.has(code) || isArchivesFault(drain, code) || isGuestsFault(drain, code)
      ? {}
      : { failedTarget: toNodeId }),
  });
}

/** Why a move came to nothing, and where to. */
export async function whyUndone(tx: Transaction, moveId: string): Promise<{ toNodeId: string; blocker: Blocker }> {
  const { toNodeId, toNode } = await lockMove(tx, moveId);
  const [error] = await tx.query<{ code: string | null; message: string | null }>(
    sql`SELECT error_code AS code, error_message AS message FROM cloud_pod_moves WHERE id = ${moveId}`,
  );
  const message = `${toNode}: ${error?.message ?? "the move was undone"}`;
  return { toNodeId, blocker: { code: error?.code ?? "MOVE_FAILED", message } };
}
