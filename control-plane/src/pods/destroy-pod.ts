import { sql } from "../platform/sql.ts";
import type { Transaction } from "../platform/database.ts";
import { stopCommand } from "../tasks/change-task.ts";
import { appendTaskEvent } from "../tasks/task-events.ts";
import { taskColumns, type Task } from "../tasks/task.ts";
import type { Accepted } from "./change-power.ts";
import { changePodStatus } from "./change-status.ts";
import { destroyDeadlineMs } from "./destroy-pod.saga.ts";
import { lockPod, type Pod } from "./pod.ts";
import { freeQuota } from "./release-pod.ts";
import { lockAskedPod, requestWork, type Requester } from "./request-work.ts";

/**
 * Destroys a pod in whatever state it is. Work that is under way ends as cancelled: removal supersedes it
 * on the host as well. The bill ends now, however long the host takes.
 * @throws DomainError `VERSION_MISMATCH`, `POD_WRONG_STATE` for a pod that is being deleted already
 */
export async function destroyPodNow(tx: Transaction, who: Requester, reference: string, now: Date): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  await freeQuota(tx, pod);
  await changePodStatus(tx, pod, "delete-asked");
  await endOpenWork(tx, pod);
  await tx.execute(sql`
    UPDATE cloud_pods SET desired_power = 'stopped', deletion_requested_at = coalesce(deletion_requested_at, ${now}) WHERE id = ${pod.id}`);
  const task = await requestWork(tx, who, pod, {
    type: "destroy",
    step: "remove",
    deadlineMs: destroyDeadlineMs,
    message: "Accepted",
  });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task };
}

async function endOpenWork(tx: Transaction, pod: Pod): Promise<void> {
  const open = await tx.query<Task>(sql`
    SELECT ${taskColumns} FROM cloud_pod_provisioning_tasks t
    WHERE t.pod_id = ${pod.id} AND t.state NOT IN ('succeeded', 'failed', 'cancelled') FOR UPDATE`);
  for (const task of open) {
    await stopCommand(tx, task);
    await tx.execute(sql`
      UPDATE cloud_pod_provisioning_tasks SET state = 'cancelled', command_id = NULL, error_code = 'POD_DESTROYED',
        error_message = 'The pod was destroyed', finished_at = now() WHERE id = ${task.id}`);
    await appendTaskEvent(tx, {
      id: task.id,
      state: "cancelled",
      step: task.step,
      percent: task.percent,
      message: "The pod is being destroyed",
    });
  }
}
