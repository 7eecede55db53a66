import { DomainError } from "@cloudpods/shared/errors";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { createTask } from "../tasks/create-task.ts";
import type { Task } from "../tasks/task.ts";
import { startStep } from "./forward-steps.ts";
import { moveDeadlineMs } from "./move-pod.saga.ts";
import { lockMove } from "./move.ts";
import { switchPlace } from "./switch-place.ts";

/**
 * The copy that a move in vain has left on a host becomes the pod, because the pod's own host has lost it. The place that
 * is still kept there is its place from now on; then it is brought to the power that is wanted, and what is left of the
 * former place is cleared as after any move. The pod's row is locked.
 * @throws DomainError `COPY_NOT_OF_A_MOVE`, `POD_BUSY`
 */
export async function acceptCopy(
  tx: Transaction,
  pod: Pod,
  nodeId: string,
  who: { readonly requestId: string },
  now: Date,
): Promise<Task> {
  const [left] = await tx.query<{ id: string }>(sql`
    SELECT m.id FROM cloud_pod_moves m JOIN node_claims k ON k.pod_id = m.pod_id AND k.generation = m.to_generation AND k.node_id = m.to_node_id
    WHERE m.pod_id = ${pod.id} AND m.to_node_id = ${nodeId} AND m.state = 'undone' AND m.from_node_id = ${pod.nodeId}
      AND m.from_generation = ${pod.generation} ORDER BY m.to_generation DESC LIMIT 1`);
  if (left === undefined) {
    const message = "No place is kept for the pod there by a move from where it is; nothing was changed.";
    throw new DomainError("wrong-state", "COPY_NOT_OF_A_MOVE", message);
  }
  const task = await createTask(tx, {
    tenantId: pod.tenantId,
    podId: pod.id,
    type: "migrate",
    step: startStep.name,
    percent: startStep.percent,
    input: { moveId: left.id },
    deadlineMs: moveDeadlineMs,
    requestedBy: "system:moves",
    requestId: who.requestId,
    message: "The copy is accepted as the pod",
  });
  await tx.execute(sql`
    UPDATE cloud_pod_moves SET state = 'moving', ended_at = NULL, error_code = NULL, error_message = NULL, task_id = ${task.id} WHERE id = ${left.id}`);
  // Before anything else is asked: from here on nothing takes the copy back.
  await switchPlace(tx, await lockPodById(tx, pod.id), await lockMove(tx, left.id), now, who.requestId);
  await tx.execute(sql`UPDATE cloud_pods SET container_missing_since = NULL WHERE id = ${pod.id}`);
  return task;
}
