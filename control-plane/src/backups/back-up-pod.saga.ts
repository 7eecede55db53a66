import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Saga } from "../tasks/saga.ts";
import type { Task } from "../tasks/task.ts";
import { backupIdOf, makeArchiveStep, verifyArchiveStep } from "./archive-steps.ts";

/** A large disk is packed and read again. */
export const backupDeadlineMs = 8 * 3_600_000;
/** A scheduled backup that failed is tried again after this, and not only when the next one is due. */
const againAfterHours = 1;

/** A backup is made and read once. What a failure leaves on the storage is removed later, as any archive that goes. */
export const backUpPod: Saga = {
  type: "backup",
  deadlineMs: backupDeadlineMs,
  steps: [makeArchiveStep, verifyArchiveStep],
  undo: [],
  async finish({ tx, task }, end) {
    if (end !== "succeeded") await failBackup(tx, task);
  },
};

/** The backup of a task that came to nothing. */
export async function failBackup(
  tx: Queryable,
  task: Pick<Task, "input" | "podId" | "errorCode" | "errorMessage">,
): Promise<void> {
  const id = backupIdOf(task);
  await tx.execute(sql`
    WITH failed AS (
      UPDATE cloud_pod_backups SET state = 'failed', finished_at = now(), error_code = coalesce(${task.errorCode}, 'CANCELLED'), error_message = ${task.errorMessage}
      WHERE id = ${id ?? null} AND state = 'running' RETURNING pod_id, kind)
    UPDATE cloud_pod_backup_policies SET next_at = least(next_at, now() + ${againAfterHours} * interval '1 hour')
    WHERE pod_id IN (SELECT pod_id FROM failed WHERE kind = 'scheduled')`);
}
