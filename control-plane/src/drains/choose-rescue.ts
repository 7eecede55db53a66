import { seesBackup } from "../backups/backup-storage.ts";
import type { MoveStrategy } from "../moves/move.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";

/** An archive that a pod can be brought back from. */
export interface RescueArchive {
  readonly backupId: string;
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
}

/**
 * Looks what is left of a pod whose host is gone. Best is its own disk, where members of the cluster share it: nothing is
 * lost then. Else its newest backup that anybody else sees; in the cluster itself the dead member's entry has to be
 * taken over with it, because it holds the id. Undefined: there is nothing.
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
    SELECT DISTINCT ON (v.node_id) v.node_id AS "nodeId", b.id AS "backupId", b.volume_id AS "volumeId", b.storage, b.started_at AS "madeAt"
    FROM cloud_pod_backups b, node_storages v
    WHERE b.pod_id = ${pod.id} AND b.state = 'available' AND b.damaged_at IS NULL AND b.delete_requested_at IS NULL
      AND v.node_id <> ${pod.nodeId} AND v.available AND ${seesBackup}
    ORDER BY v.node_id, b.started_at DESC`);
  const [newest] = seen.toSorted((a, b) => b.madeAt.getTime() - a.madeAt.getTime());
  if (newest === undefined) return undefined;
  const isMember = (nodeId: string): boolean => members.some((member) => member.nodeId === nodeId);
  const hosts = seen
    .filter(({ backupId }) => backupId === newest.backupId)
    .map(({ nodeId }): RescueHost => ({ nodeId, strategy: isMember(nodeId) ? "take-over" : "restore-newest" }));
  const { backupId, volumeId, storage, madeAt } = newest;
  return { hosts, archive: { backupId, volumeId, storage, madeAt } };
}
