import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { selectBackups, type UsableBackup } from "./backup.ts";
import { seesBackup } from "./backup-storage.ts";
import { lockBackupsOf } from "./take-back-retention.ts";

/** The backup of a pod that a move brings it back from, locked with all others; undefined for an archive of the move's own. */
export async function lockBackupOf(
  tx: Queryable,
  pod: { readonly id: string },
  { archiveVolumeId, toNodeId }: { readonly archiveVolumeId: string | null; readonly toNodeId: string },
): Promise<UsableBackup | undefined> {
  await lockBackupsOf(tx, pod.id);
  const [backup] = await tx.query<UsableBackup>(sql`
    ${selectBackups} WHERE b.pod_id = ${pod.id} AND b.volume_id = ${archiveVolumeId} AND b.state = 'available'
      AND EXISTS (SELECT FROM node_storages v WHERE v.node_id = ${toNodeId} AND ${seesBackup})`);
  return backup;
}
