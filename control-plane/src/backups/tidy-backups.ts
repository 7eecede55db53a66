import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/**
 * Brings rows in order whose archives no task looks after any more:
 * - the task of a backup that runs has ended without it, as when its pod was destroyed;
 * - a failed backup has left an archive, as its host said too late for the task.
 * @returns how many have failed by that
 */
export async function tidyBackups(db: Database, now: Date): Promise<number> {
  const failed = await db.execute(sql`
    UPDATE cloud_pod_backups b SET state = 'failed', finished_at = ${now}, error_code = coalesce(t.error_code, 'TASK_OVER'), error_message = t.error_message
    FROM cloud_pod_provisioning_tasks t
    WHERE b.state = 'running' AND t.id = b.task_id AND t.state IN ('succeeded', 'failed', 'cancelled')`);
  await db.execute(sql`
    UPDATE cloud_pod_backups b SET volume_id = c.backup->>'volumeId' FROM node_commands c
    WHERE b.state = 'failed' AND b.volume_id IS NULL AND c.pod_id = b.pod_id AND c.task_id = b.task_id AND c.op = 'backup'
      AND c.command->'backup'->>'backupId' = b.id::text AND c.backup->>'found' = 'true'`);
  return failed;
}
