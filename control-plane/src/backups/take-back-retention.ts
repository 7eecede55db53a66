import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** Locks what decisions about a pod's backups rest on, in the order of whoever decides which of them go. */
export async function lockBackupsOf(tx: Queryable, podId: string): Promise<void> {
  await tx.query(sql`
    SELECT FROM cloud_pod_backups WHERE pod_id = ${podId} AND state = 'available' ORDER BY id FOR NO KEY UPDATE`);
}

/**
 * One of a pod's backups counts no more, and others may have been wished gone because of it: of those that no host was
 * told of yet it is decided anew. All of the pod's backups are locked.
 */
export async function takeBackRetention(tx: Queryable, podId: string): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_backups SET delete_requested_at = NULL, delete_reason = NULL
    WHERE pod_id = ${podId} AND state = 'available' AND delete_reason = 'retention' AND errand IS DISTINCT FROM 'delete'`);
}
