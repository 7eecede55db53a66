import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import type { Backup, BackupMode } from "./backup.ts";
import type { Pod } from "../pods/pod.ts";

/** Where a backup goes and how it is made there. */
export interface BackupPlace {
  readonly nodeId: string;
  readonly storageId: string;
  readonly storage: string;
  readonly mode: BackupMode;
}

/** Storages on which a container goes on while it is read. */
const snapshotTypes = ["lvmthin", "zfspool", "btrfs", "rbd"];

/**
 * The storage for a backup of a pod: that which was chosen for its host while it is there; else one that several hosts
 * see before one of its host alone, since what burns with the host is no backup; then the emptiest. A container that is stopped needs no snapshot.
 * @throws DomainError `NO_BACKUP_STORAGE`
 */
export async function chooseBackupPlace(tx: Queryable, pod: Pod, mode?: BackupMode): Promise<BackupPlace> {
  const [place] = await tx.query<Omit<BackupPlace, "mode"> & { rootType: string | null }>(sql`
    SELECT v.node_id AS "nodeId", s.id AS "storageId", s.name AS storage,
      (SELECT r.type FROM node_claims k JOIN storages r ON r.id = k.storage_id WHERE k.pod_id = ${pod.id} AND k.generation = ${pod.generation}) AS "rootType"
    FROM node_storages v JOIN storages s ON s.id = v.storage_id JOIN node_status n ON n.node_id = v.node_id JOIN nodes h ON h.id = v.node_id
    WHERE v.node_id = ${pod.nodeId} AND v.available AND s.holds_backups AND n.capabilities @> ARRAY['backup', 'verify_backup']
    ORDER BY s.name IS NOT DISTINCT FROM h.backup_storage DESC, s.shared DESC, s.total_gb - s.used_gb DESC, s.name LIMIT 1`);
  if (place === undefined) {
    throw new DomainError(
      "wrong-state",
      "NO_BACKUP_STORAGE",
      "The pod's host has no storage for backups that answers, or its agent is too old to make any.",
    );
  }
  const { nodeId, storageId, storage, rootType } = place;
  return { nodeId, storageId, storage, mode: mode ?? modeFor(pod, rootType) };
}

function modeFor({ observedPower, desiredPower }: Pod, rootType: string | null): BackupMode {
  if (observedPower === "stopped" && desiredPower === "stopped") return "stop";
  return rootType !== null && snapshotTypes.includes(rootType) ? "snapshot" : "suspend";
}

/**
 * Rows `v` of node_storages by which a backup `b` can be seen while they are available: its very storage, or one of the
 * same name whose data is at the same place.
 */
export const seesBackup: Sql = sql`v.storage_id IN (
  SELECT t.id FROM storages o JOIN storages t ON t.id = o.id
    OR (t.name = o.name AND t.shared AND o.shared AND t.backend = o.backend AND o.backend <> '')
  WHERE o.id = b.storage_id)`;

/** Whether the archive of a backup `b` lies where no host of the fleet will see it again: its host was removed. */
export const isOutOfReach: Sql = sql`(b.pruned_at IS NULL AND b.state IN ('available', 'failed') AND b.volume_id IS NOT NULL
  AND EXISTS (SELECT FROM nodes n WHERE n.id = b.node_id AND n.removed_at IS NOT NULL)
  AND NOT EXISTS (SELECT FROM node_storages v JOIN nodes n ON n.id = v.node_id AND n.removed_at IS NULL WHERE ${seesBackup}))`;

/** How many backups that can be restored would be out of reach for good without a host. */
export async function countBackupsOnlyOn(tx: Queryable, nodeId: string): Promise<number> {
  const [counted] = await tx.query<{ backups: number }>(sql`
    WITH only_here AS MATERIALIZED (
      SELECT b.storage_id FROM (SELECT id AS storage_id FROM storages) b
      WHERE EXISTS (SELECT FROM node_storages v WHERE v.node_id = ${nodeId} AND ${seesBackup})
        AND NOT EXISTS (SELECT FROM node_storages v JOIN nodes n ON n.id = v.node_id AND n.removed_at IS NULL WHERE v.node_id <> ${nodeId} AND ${seesBackup}))
    SELECT count(*)::integer AS backups FROM cloud_pod_backups JOIN only_here USING (storage_id) WHERE state = 'available' AND pruned_at IS NULL`);
  return counted?.backups ?? 0;
}

/** Ids of the hosts that see a backup's archive, whatever their state. */
export async function hostsSeeing(tx: Queryable, backup: Pick<Backup, "id">): Promise<string[]> {
  const rows = await tx.query<{ nodeId: string }>(sql`
    SELECT DISTINCT v.node_id AS "nodeId" FROM cloud_pod_backups b, node_storages v WHERE b.id = ${backup.id} AND v.available AND ${seesBackup}`);
  return rows.map(({ nodeId }) => nodeId);
}

/** The refusal of a restore on hosts that do not see the archive. */
export function notReachable(backup: Pick<Backup, "storage">): DomainError {
  return new DomainError(
    "wrong-state",
    "BACKUP_NOT_REACHABLE",
    `The backup is on the storage ${backup.storage}, which no host that could take it sees.`,
  );
}
