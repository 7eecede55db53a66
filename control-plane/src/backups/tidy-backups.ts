import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { seesBackup } from "./backup-storage.ts";

/**
 * Brings rows in order whose archives no task looks after any more:
 * - the task of a backup that runs has ended without it, as when its pod was destroyed;
 * - a failed backup has left an archive, as its host said too late for the task;
 * - the archive lies where no host of the fleet will ever see it again: its host was removed.
 */
export async function tidyBackups(db: Database, now: Date): Promise<{ failed: number; unreachable: number }> {
  const failed = await db.execute(sql`
    UPDATE cloud_pod_backups b SET state = 'failed', finished_at = ${now}, error_code = coalesce(t.error_code, 'TASK_OVER'), error_message = t.error_message
    FROM cloud_pod_provisioning_tasks t
    WHERE b.state = 'running' AND t.id = b.task_id AND t.state IN ('succeeded', 'failed', 'cancelled')`);
  await db.execute(sql`
    UPDATE cloud_pod_backups b SET volume_id = c.backup->>'volumeId' FROM node_commands c
    WHERE b.state = 'failed' AND b.volume_id IS NULL AND c.pod_id = b.pod_id AND c.task_id = b.task_id AND c.op = 'backup'
      AND c.command->'backup'->>'backupId' = b.id::text AND c.backup->>'found' = 'true'`);
  const unreachable = await db.execute(sql`
    UPDATE cloud_pod_backups b SET state = CASE WHEN state = 'failed' THEN state ELSE 'pruned' END, pruned_at = ${now},
      error_code = CASE WHEN state = 'failed' THEN error_code ELSE 'STORAGE_GONE' END,
      error_message = CASE WHEN state = 'failed' THEN error_message ELSE 'The host that had it was removed, and no other sees its storage' END,
      errand = NULL, errand_command_id = NULL
    WHERE b.pruned_at IS NULL AND b.state IN ('available', 'failed') AND b.volume_id IS NOT NULL
      AND EXISTS (SELECT FROM nodes n WHERE n.id = b.node_id AND n.removed_at IS NOT NULL)
      AND NOT EXISTS (SELECT FROM node_storages v JOIN nodes n ON n.id = v.node_id AND n.removed_at IS NULL WHERE ${seesBackup})`);
  return { failed, unreachable };
}
