import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { namesOf, readExtraVolumes, type ExtraVolumes } from "../pods/extra-volumes.ts";
import type { Blocker } from "./plan-moves.ts";

/** How pods of one host can get to another. */
export interface Reach {
  readonly nodeId: string;
  /** Both are in one Proxmox cluster and the source's agent can migrate. */
  readonly canMigrate: boolean;
  /** Storage for archives that both see and may use; null: none, or an agent too old for it. */
  readonly archiveStorage: string | null;
}

/** What decides how a pod can move, of its disk. */
export interface SourceDisk {
  readonly storage: string;
  /** Members of the cluster see the same storage: a migration moves no data and needs no new room. */
  readonly isShared: boolean;
  /** Proxmox refuses to migrate it: its template's disk is on the source alone, or snapshots that it cannot take along. */
  readonly isBoundToHost: boolean;
  /** What its container has besides: no archive of a pod holds it. */
  readonly extraVolumes?: ExtraVolumes | undefined;
}

/** The way of a pod to a target; undefined: there is none. */
export function strategyFor(disk: SourceDisk, reach: Reach): "cluster-migrate" | "backup-restore" | undefined {
  if (reach.canMigrate && !disk.isBoundToHost) return "cluster-migrate";
  return archiveStorageFor(disk, reach) === null ? undefined : "backup-restore";
}

/** Where an archive of the pod could go; null: nowhere, or it would not hold all that the container has. */
export function archiveStorageFor({ extraVolumes }: SourceDisk, { archiveStorage }: Reach): string | null {
  return extraVolumes === undefined ? archiveStorage : null;
}

/** What is told of a pod that could move by an archive but for its further volumes; undefined: those are not the reason. */
export function blockedByVolumes({ extraVolumes }: SourceDisk, reach: readonly Reach[]): Blocker | undefined {
  if (extraVolumes === undefined || reach.every(({ archiveStorage }) => archiveStorage === null)) return undefined;
  const message = `Its container has ${namesOf(extraVolumes)}, which no archive of a pod would hold.`;
  return { code: "MORE_THAN_A_POD", message };
}

/**
 * The hosts that pods of `fromNodeId` could get to somehow. Hosts without a common cluster count as seeing one
 * storage when its name and the place where its data is are the same on both; that the target really sees an
 * archive is checked again in the move, before the source gives anything up.
 */
export async function readReach(tx: Queryable, fromNodeId: string): Promise<Reach[]> {
  return await tx.query<Reach>(sql`
    SELECT t.id AS "nodeId", coalesce(t.cluster_id = f.cluster_id, false) AND 'migrate' = ANY(fs.capabilities) AS "canMigrate",
      CASE WHEN 'backup' = ANY(fs.capabilities) AND ts.capabilities @> ARRAY['restore', 'verify_backup', 'delete_backup'] THEN (
        SELECT a.name FROM node_storages av JOIN storages a ON a.id = av.storage_id
        JOIN node_storages bv ON bv.node_id = t.id AND bv.available JOIN storages b ON b.id = bv.storage_id AND b.name = a.name
        WHERE av.node_id = f.id AND av.available AND a.holds_backups AND b.holds_backups AND a.shared AND b.shared
          AND (a.id = b.id OR (a.backend <> '' AND a.backend = b.backend))
        ORDER BY a.name IS NOT DISTINCT FROM f.backup_storage DESC, a.total_gb - a.used_gb DESC, a.name LIMIT 1) END AS "archiveStorage"
    FROM nodes f JOIN node_status fs ON fs.node_id = f.id, nodes t JOIN node_status ts ON ts.node_id = t.id
    WHERE f.id = ${fromNodeId} AND t.id <> f.id AND t.removed_at IS NULL AND t.role = 'hypervisor'
    ORDER BY t.id`);
}

/** Storages whose snapshots Proxmox moves with a volume. */
const snapshotMovers: ReadonlySet<string> = new Set(["zfspool", "btrfs"]);

/**
 * The disks of pods, by pod. That one is a linked clone follows from its template and its storage, unless it was
 * restored since; where that is wrong the host says so and the move goes the other way.
 */
export async function readSourceDisks(tx: Queryable, podIds: readonly string[]): Promise<Map<string, SourceDisk>> {
  const volumes = await readExtraVolumes(tx, podIds, "snapshots");
  const rows = await tx.query<{
    podId: string;
    storage: string;
    type: string;
    isShared: boolean;
    isLinkedClone: boolean;
  }>(sql`
    SELECT p.id AS "podId", s.name AS storage, s.type, s.cluster_id IS NOT NULL AS "isShared",
      s.cluster_id IS NULL AND p.template LIKE 'ct:%' AND s.type IN ('lvmthin', 'zfspool', 'btrfs') AND NOT EXISTS (
        SELECT FROM cloud_pod_moves m WHERE m.pod_id = p.id AND m.state = 'moved' AND m.strategy IN ('backup-restore', 'restore-newest')) AS "isLinkedClone"
    FROM cloud_pods p JOIN node_claims k ON k.pod_id = p.id AND k.generation = p.generation JOIN storages s ON s.id = k.storage_id
    WHERE p.id = ANY(${[...podIds]}::uuid[])`);
  return new Map(
    rows.map(({ podId, storage, type, isShared, isLinkedClone }) => {
      const extraVolumes = volumes.get(podId);
      const hasSnapshots = extraVolumes?.keys.some((key) => key.startsWith("snapshot:")) === true;
      const isBoundToHost = isLinkedClone || (hasSnapshots && !isShared && !snapshotMovers.has(type));
      return [podId, { storage, isShared, isBoundToHost, extraVolumes }];
    }),
  );
}
