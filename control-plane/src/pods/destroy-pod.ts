import { newId } from "@cloudpods/shared/ids";
import { makeArchiveStep } from "../backups/archive-steps.ts";
import { insertBackup, requireBackable } from "../backups/request-backup.ts";
import { sql } from "../platform/sql.ts";
import type { Transaction } from "../platform/database.ts";
import { stopCommand } from "../tasks/change-task.ts";
import { appendTaskEvent } from "../tasks/task-events.ts";
import { taskColumns, type Task } from "../tasks/task.ts";
import type { Accepted } from "./change-power.ts";
import { destroyDeadlineMs } from "./destroy-pod.saga.ts";
import { lockPod, type Pod } from "./pod.ts";
import { beginRemoval } from "./release-pod.ts";
import { lockAskedPod, requestWork, type Requester } from "./request-work.ts";

/**
 * Destroys a pod in whatever state it is. Work that is under way ends as cancelled: removal supersedes it
 * on the host as well. The bill ends now, however long the host takes.
 * @throws DomainError `VERSION_MISMATCH`, `POD_WRONG_STATE` for a pod that is being deleted already
 */
export async function destroyPodNow(tx: Transaction, who: Requester, reference: string, now: Date): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  await beginRemoval(tx, pod, now);
  await endOpenWork(tx, pod);
  const task = await requestWork(tx, who, pod, {
    type: "destroy",
    step: "remove",
    deadlineMs: destroyDeadlineMs,
    message: "Accepted",
  });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task };
}

/**
 * Destroys a pod once a last backup of it is there and was read. Until then the pod is what it was, and stays so when
 * there will be none.
 * @throws DomainError `POD_WRONG_STATE`, `NO_BACKUP_STORAGE`, `POD_BUSY`, `VERSION_MISMATCH`
 */
export async function destroyAfterBackup(tx: Transaction, who: Requester, reference: string): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  requireBackable(pod);
  const backupId = newId();
  const task = await requestWork(tx, who, pod, {
    type: "destroy",
    step: makeArchiveStep.name,
    deadlineMs: destroyDeadlineMs,
    input: { backupId },
    message: "Accepted; a last backup is made first",
    detail: { backupId },
  });
  await insertBackup(tx, pod, { id: backupId, kind: "final", taskId: task.id });
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
