import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Accepted } from "../pods/change-power.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { createTask } from "../tasks/create-task.ts";
import type { Task } from "../tasks/task.ts";
import { checkStep } from "./forward-steps.ts";
import { moveDeadlineMs } from "./move-pod.saga.ts";
import type { Move } from "./move.ts";
import { reserveMove, type MoveOrder } from "./reserve-move.ts";

/** Of an operator, for one pod. */
export interface MoveRequest {
  /** Undefined: the best one. */
  readonly targetNodeId: string | undefined;
  readonly reason: string;
}

/**
 * Asks for the move of one pod: the place is claimed and the task queued together. The pod's row is locked.
 * @throws DomainError `POD_WRONG_STATE`, `NODE_NOT_ONLINE`, `POD_BUSY`, `MOVE_RESERVED`, `NO_WAY`, `MORE_THAN_A_POD`; NoCapacityError
 */
export async function requestMove(
  tx: Transaction,
  fleet: FleetView,
  who: { readonly actor: Actor; readonly requestId: string },
  pod: Pod,
  request: MoveRequest,
): Promise<Accepted> {
  requireMovable(pod);
  await requireHostOnline(tx, pod);
  await refuseReserved(tx, pod);
  const { targetNodeId, reason } = request;
  const { task, move } = await moveNow(tx, fleet, pod, who.requestId, {
    purpose: "migrate",
    targetNodeId,
    reason,
    requestedBy: `${who.actor.kind}:${who.actor.id}`,
  });
  await recordAudit(tx, {
    ...who,
    tenantId: pod.tenantId,
    action: "pod.migrate",
    targetType: "pod",
    targetId: pod.id,
    detail: { reason, from: move.fromNode, to: move.toNode, strategy: move.strategy },
  });
  return { pod: await lockPodById(tx, pod.id), task };
}

/** Claims a place and queues the task that moves the pod there. @throws as `requestMove` */
export async function moveNow(
  tx: Transaction,
  fleet: FleetView,
  pod: Pod,
  requestId: string,
  order: Omit<MoveOrder, "id" | "taskId">,
): Promise<{ task: Task; move: Move }> {
  const moveId = newId();
  const task = await queueMove(tx, pod, moveId, requestId);
  // Last: from here on the target's row is held.
  const move = await reserveMove(tx, fleet, pod, { ...order, id: moveId, taskId: task.id });
  return { task, move };
}

/**
 * Begins a move whose place was kept. `forceAt`: from when on its pod may be stopped by force.
 * @throws DomainError `POD_BUSY`
 */
export async function startReserved(
  tx: Transaction,
  pod: Pod,
  move: Move,
  requestId: string,
  runs: boolean,
  forceAt?: Date,
): Promise<Task> {
  const task = await queueMove(tx, pod, move.id, requestId, forceAt);
  await tx.execute(sql`
    UPDATE cloud_pod_moves SET state = 'moving', task_id = ${task.id}, runs = ${runs}, disk_gb = ${pod.diskGb}
    WHERE id = ${move.id} AND state = 'reserved'`);
  return task;
}

async function queueMove(tx: Transaction, pod: Pod, moveId: string, requestId: string, forceAt?: Date): Promise<Task> {
  return await createTask(tx, {
    tenantId: pod.tenantId,
    podId: pod.id,
    type: "migrate",
    step: checkStep.name,
    input: { moveId, ...(forceAt === undefined ? {} : { forceAfterMs: forceAt.getTime() }) },
    deadlineMs: moveDeadlineMs,
    // Operators' work: its customer cannot cancel it; an operator can, until the pod is stopped for it.
    requestedBy: "system:moves",
    requestId,
    message: "Accepted",
  });
}

/** Whether other work on a pod is under way. Its row is locked, so none can begin meanwhile. */
export async function isBusy(tx: Queryable, podId: string): Promise<boolean> {
  const open = await tx.query(sql`
    SELECT FROM cloud_pod_provisioning_tasks WHERE pod_id = ${podId} AND state NOT IN ('succeeded', 'failed', 'cancelled')`);
  return open.length > 0;
}

/** @throws DomainError `POD_WRONG_STATE` for pods that are being made or removed or that failed */
export function requireMovable(pod: Pod): void {
  if (pod.status === "active" || pod.status === "suspended") return;
  throw new DomainError(
    "wrong-state",
    "POD_WRONG_STATE",
    `The pod is ${pod.status}; only active and suspended pods move.`,
    {
      details: { status: pod.status, allowed: ["active", "suspended"] },
    },
  );
}

/** @throws DomainError `NODE_NOT_ONLINE` when nobody would hear that the pod is to move */
export async function requireHostOnline(tx: Queryable, { nodeId }: Pod): Promise<void> {
  const [host] = await tx.query<{ name: string; state: string }>(
    sql`SELECT n.name, s.state FROM nodes n JOIN node_status s ON s.node_id = n.id WHERE n.id = ${nodeId}`,
  );
  if (host === undefined || host.state === "online" || host.state === "degraded") return;
  const { name, state } = host;
  const message = `${name} is ${state}: nothing can be moved from there. If it is gone for good, evacuate it.`;
  throw new DomainError("wrong-state", "NODE_NOT_ONLINE", message, { details: { state } });
}

/** @throws DomainError `MOVE_RESERVED` while a drain keeps a place for the pod */
export async function refuseReserved(tx: Queryable, pod: Pod): Promise<void> {
  const reserved = await tx.query(sql`SELECT FROM cloud_pod_moves WHERE pod_id = ${pod.id} AND state = 'reserved'`);
  if (reserved.length === 0) return;
  throw new DomainError(
    "conflict",
    "MOVE_RESERVED",
    "The pod's host is being emptied and the pod has its place already; cancel that first.",
  );
}
