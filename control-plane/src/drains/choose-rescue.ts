import { isUsable } from "../backups/backup.ts";
import { seesBackup } from "../backups/backup-storage.ts";
import type { MoveStrategy } from "../moves/move.ts";
import type { Blocker } from "../moves/plan-moves.ts";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { namesOf, readExtraVolumes } from "../pods/extra-volumes.ts";
import type { Pod } from "../pods/pod.ts";

/** An archive that a pod can be brought back from. */
export interface RescueArchive {
  /** Null: made by a move that the end of its host has interrupted. */
  readonly backupId: string | null;
  readonly volumeId: string;
  readonly storage: string;
  readonly madeAt: Date;
}

/** A host that could bring a pod back, and how. */
export interface RescueHost {
  readonly nodeId: string;
  readonly strategy: Extract<MoveStrategy, "take-over" | "restore-newest">;
}

/** How a pod of a host that is gone can be brought back. */
export interface Rescue {
  readonly hosts: readonly RescueHost[];
  /** Undefined: its disk is still there, on storage that the cluster shares. */
  readonly archive: RescueArchive | undefined;
  /** Why none of the hosts that could would do it; then `hosts` is empty. */
  readonly blocker?: Blocker;
}

/** What is said of a pod that nothing is left of. */
export const noBackup: Blocker = {
  code: "NO_BACKUP",
  message: "There is no backup that another host sees, and its disk went with its host.",
};

/** Of pods that will not come back, whatever else happens; a pod that failed before has nothing to come back to. */
export const hopelessCodes: readonly string[] = [noBackup.code, "POD_FAILED"];

export function isHopeless({ code }: Blocker): boolean {
  return hopelessCodes.includes(code);
}

/** Archives of a pod: its backups that are good, and what its moves have left. */
const archivesOf = (pod: Pod): Sql => sql`
    (
      SELECT b.id AS backup_id, b.volume_id, b.storage, b.storage_id, b.started_at AS made_at FROM cloud_pod_backups b
      WHERE b.pod_id = ${pod.id} AND ${isUsable}
      UNION ALL
      SELECT NULL, m.archive_volume_id, m.archive_storage, s.id, m.archive_made_at FROM cloud_pod_moves m JOIN nodes f ON f.id = m.from_node_id
      JOIN storages s ON s.name = m.archive_storage AND (s.node_id = f.id OR s.cluster_id = f.cluster_id)
      WHERE m.pod_id = ${pod.id} AND m.archive_is_ours AND m.archive_volume_id IS NOT NULL AND m.archive_removed_at IS NULL
        -- Of a backup that is no good its row tells; of these only who has tried.
        AND NOT EXISTS (SELECT FROM cloud_pod_moves e WHERE e.pod_id = m.pod_id AND e.purpose = 'evacuate' AND e.archive_volume_id = m.archive_volume_id
          AND e.error_code = 'ARCHIVE_UNREADABLE'))`;

/**
 * Looks what is left of a pod whose host is gone. Best is its own disk, where members of the cluster share it: nothing is
 * lost then. Else the newest archive that anybody else sees, its own backups' or one that a move has left: that of a drain in
 * which its host died holds everything. In the cluster itself the dead member's entry has to be taken over with it, because it
 * holds the id. Undefined: there is nothing, and not only at this moment.
 */
export async function chooseRescue(tx: Queryable, pod: Pod): Promise<Rescue | undefined> {
  const [members, disk] = await Promise.all([
    tx.query<{ nodeId: string }>(sql`
      SELECT t.id AS "nodeId" FROM nodes f JOIN nodes t ON t.cluster_id = f.cluster_id AND t.id <> f.id
      WHERE f.id = ${pod.nodeId} AND t.removed_at IS NULL AND t.role = 'hypervisor'`),
    tx.query<{ nodeId: string }>(sql`
      SELECT v.node_id AS "nodeId" FROM node_claims k JOIN storages s ON s.id = k.storage_id AND s.cluster_id IS NOT NULL
      JOIN node_storages v ON v.storage_id = s.id AND v.available
      WHERE k.pod_id = ${pod.id} AND k.generation = ${pod.generation} AND v.node_id <> ${pod.nodeId}`),
  ]);
  if (disk.length > 0)
    return { hosts: disk.map(({ nodeId }) => ({ nodeId, strategy: "take-over" })), archive: undefined };
  const seen = await tx.query<RescueArchive & { nodeId: string }>(sql`
    SELECT DISTINCT ON (v.node_id) v.node_id AS "nodeId", b.backup_id AS "backupId", b.volume_id AS "volumeId", b.storage, b.made_at AS "madeAt"
    FROM ${archivesOf(pod)} b, node_storages v
    WHERE v.node_id <> ${pod.nodeId} AND v.available AND ${seesBackup}
      AND (b.backup_id IS NOT NULL OR NOT EXISTS (SELECT FROM cloud_pod_moves e WHERE e.pod_id = ${pod.id} AND e.purpose = 'evacuate'
        AND e.archive_volume_id = b.volume_id AND e.error_code = 'ARCHIVE_NOT_SEEN' AND e.to_node_id = v.node_id))
    ORDER BY v.node_id, b.made_at DESC`);
  const [newest] = seen.toSorted((a, b) => b.madeAt.getTime() - a.madeAt.getTime());
  if (newest === undefined) return await unseenRescue(tx, pod);
  const isMember = (nodeId: string): boolean => members.some((member) => member.nodeId === nodeId);
  const { backupId, volumeId, storage, madeAt } = newest;
  const archive = { backupId, volumeId, storage, madeAt };
  const able = seen
    .filter((one) => one.volumeId === volumeId && one.storage === storage)
    .map(({ nodeId }): RescueHost => ({ nodeId, strategy: isMember(nodeId) ? "take-over" : "restore-newest" }));
  const extra = (await readExtraVolumes(tx, [pod.id])).get(pod.id);
  if (extra === undefined) return { hosts: able, archive };
  // Restored over the entry that is taken over, the archive would take the place of volumes that it does not hold.
  const hosts = able.filter(({ strategy }) => strategy !== "take-over");
  if (hosts.length > 0) return { hosts, archive };
  const message = `Its container has ${namesOf(extra)}, which no archive of a pod holds and a restore in its cluster would remove.`;
  return { hosts, archive, blocker: { code: "MORE_THAN_A_POD", message } };
}

/**
 * What no other host sees for now, but did not go with the pod's: a disk or a backup on storage that others have too or
 * that is shared by its kind. No pod is given up for it.
 */
async function unseenRescue(tx: Queryable, pod: Pod): Promise<Rescue | undefined> {
  const [left] = await tx.query<{ disk: string | null; backup: string | null }>(sql`
    SELECT (SELECT s.name FROM node_claims k JOIN storages s ON s.id = k.storage_id AND s.cluster_id IS NOT NULL
        JOIN node_storages v ON v.storage_id = s.id AND v.node_id <> ${pod.nodeId} JOIN nodes n ON n.id = v.node_id AND n.removed_at IS NULL
        WHERE k.pod_id = ${pod.id} AND k.generation = ${pod.generation} LIMIT 1) AS disk,
      (SELECT b.storage FROM ${archivesOf(pod)} b JOIN storages o ON o.id = b.storage_id
        WHERE (o.shared OR EXISTS (SELECT FROM node_storages v JOIN nodes n ON n.id = v.node_id AND n.removed_at IS NULL
            WHERE v.node_id <> ${pod.nodeId} AND ${seesBackup}))
        ORDER BY b.made_at DESC LIMIT 1) AS backup`);
  const blocked = (code: string, message: string): Rescue => ({
    hosts: [],
    archive: undefined,
    blocker: { code, message },
  });
  if (left?.disk !== null && left?.disk !== undefined)
    return blocked(
      "DISK_NOT_REACHABLE",
      `Its disk is on the storage ${left.disk}, which no other host sees at present.`,
    );
  if (left?.backup !== null && left?.backup !== undefined) {
    const message = `It has backups on the storage ${left.backup}, which no other host sees at present.`;
    return blocked("BACKUP_NOT_REACHABLE", message);
  }
  return undefined;
}
