import type { StorageObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/**
 * Takes over the storages of a host. One that the members of a cluster share is one row, so its space is
 * promised once. A storage that does not answer keeps its size: it is out of use, not empty.
 */
export async function recordStorages(
  tx: Transaction,
  nodeId: string,
  storages: readonly StorageObservation[],
): Promise<void> {
  const [node] = await tx.query<{ clusterId: string | null }>(
    sql`SELECT cluster_id AS "clusterId" FROM nodes WHERE id = ${nodeId}`,
  );
  const clusterId = node?.clusterId ?? null;
  const ofCluster = clusterId === null ? [] : storages.filter((storage) => storage.shared);
  const ofNode = storages.filter((storage) => !ofCluster.includes(storage));
  const seen = [
    ...(clusterId === null ? [] : await upsertStorages(tx, { clusterId }, ofCluster)),
    ...(await upsertStorages(tx, { nodeId }, ofNode)),
  ];
  await Promise.all([
    tx.execute(sql`
      UPDATE node_storages SET available = false WHERE node_id = ${nodeId} AND available AND storage_id <> ALL(${seen.map((storage) => storage.id)}::uuid[])`),
    tx.execute(sql`
      INSERT INTO node_storages (node_id, storage_id, available)
      SELECT ${nodeId}, x.id, x.available FROM jsonb_to_recordset(${JSON.stringify(seen)}::jsonb) AS x(id uuid, available boolean)
      ON CONFLICT (node_id, storage_id) DO UPDATE SET available = excluded.available, seen_at = now()`),
  ]);
}

async function upsertStorages(
  tx: Transaction,
  owner: { readonly clusterId: string } | { readonly nodeId: string },
  storages: readonly StorageObservation[],
): Promise<{ id: string; available: boolean }[]> {
  if (storages.length === 0) return [];
  const seen = JSON.stringify(
    storages.map((storage) => ({
      id: newId(),
      name: storage.storage,
      type: storage.type,
      shared: storage.shared,
      holds: storage.content.includes("rootdir"),
      backups: storage.content.includes("backup"),
      backend: storage.backend,
      total: storage.available ? storage.totalGb : null,
      used: storage.available ? storage.usedGb : null,
    })),
  );
  const ofCluster = "clusterId" in owner;
  const target = ofCluster
    ? sql`(cluster_id, name) WHERE cluster_id IS NOT NULL`
    : sql`(node_id, name) WHERE node_id IS NOT NULL`;
  const ownerId = ofCluster ? owner.clusterId : owner.nodeId;
  // In the order of names, as everyone locks them.
  const rows = await tx.query<{ id: string; name: string }>(sql`
    INSERT INTO storages AS s (id, ${ofCluster ? sql`cluster_id` : sql`node_id`}, name, type, shared, holds_root_disks, holds_backups, backend, total_gb, used_gb)
    SELECT x.id, ${ownerId}::uuid, x.name, x.type, x.shared, x.holds, x.backups, x.backend, coalesce(x.total, 0), coalesce(x.used, 0)
    FROM jsonb_to_recordset(${seen}::jsonb) AS x(id uuid, name text, type text, shared boolean, holds boolean, backups boolean, backend text, total integer, used integer)
    ORDER BY x.name
    ON CONFLICT ${target} DO UPDATE SET type = excluded.type, shared = excluded.shared, holds_root_disks = excluded.holds_root_disks,
      holds_backups = excluded.holds_backups, backend = excluded.backend,
      total_gb = CASE WHEN excluded.total_gb > 0 THEN excluded.total_gb ELSE s.total_gb END,
      used_gb = CASE WHEN excluded.total_gb > 0 THEN excluded.used_gb ELSE s.used_gb END
    RETURNING id, name`);
  const availableByName = new Map(storages.map((storage) => [storage.storage, storage.available]));
  return rows.map((row) => ({ id: row.id, available: availableByName.get(row.name) ?? false }));
}
