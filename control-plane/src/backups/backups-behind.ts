import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { seesBackup } from "./backup-storage.ts";

/**
 * A pod that has moved away from all its backups is backed up soon where it is now, and not only when the next one is
 * due: until then there is nothing to go back to.
 */
export async function backUpSoonIfBehind(tx: Queryable, podId: string): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_backup_policies q SET next_at = least(q.next_at, now()) FROM cloud_pods p
    WHERE q.pod_id = ${podId} AND p.id = q.pod_id AND q.enabled
      AND EXISTS (SELECT FROM cloud_pod_backups b WHERE b.pod_id = p.id AND b.state = 'available' AND b.damaged_at IS NULL)
      AND NOT EXISTS (SELECT FROM cloud_pod_backups b, node_storages v
        WHERE b.pod_id = p.id AND b.state = 'available' AND b.damaged_at IS NULL AND v.node_id = p.node_id AND v.available AND ${seesBackup})`);
}
