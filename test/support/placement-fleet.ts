import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";

/** What every node of a made fleet has. */
export interface FleetShape {
  readonly nodes: number;
  /** May be promised of each node. */
  readonly cores: number;
  readonly memoryMb: number;
  /** Of the storage `local` of each node. */
  readonly diskGb: number;
  readonly region?: string;
}

/** Makes nodes that are online and empty, each with a storage `local` and the template `ct:9000`; names are `<prefix>-00001` … */
export async function insertFleet(db: Queryable, shape: FleetShape, prefix = "node"): Promise<string[]> {
  const ids = Array.from({ length: shape.nodes }, () => newId());
  await db.execute(sql`
    INSERT INTO nodes (id, name, region, template_vmid)
    SELECT id, ${prefix} || '-' || to_char(n, 'FM00000'), ${shape.region ?? "eu"}, 9000 FROM unnest(${ids}::uuid[]) WITH ORDINALITY AS given (id, n)`);
  await db.execute(
    sql`INSERT INTO node_status (node_id, state) SELECT id, 'online' FROM unnest(${ids}::uuid[]) AS given (id)`,
  );
  await db.execute(sql`
    INSERT INTO node_capacity (node_id, cpu_total, cpu_overcommit, memory_total_mb)
    SELECT id, ${shape.cores}, 1, ${shape.memoryMb} FROM unnest(${ids}::uuid[]) AS given (id)`);
  await db.execute(sql`
    INSERT INTO storages (id, node_id, name, type, total_gb)
    SELECT gen_random_uuid(), id, 'local', 'lvmthin', ${shape.diskGb} FROM unnest(${ids}::uuid[]) AS given (id)`);
  await db.execute(sql`
    INSERT INTO node_storages (node_id, storage_id) SELECT node_id, id FROM storages WHERE node_id = ANY(${ids}::uuid[])`);
  await db.execute(
    sql`INSERT INTO node_templates (node_id, name) SELECT id, 'ct:9000' FROM unnest(${ids}::uuid[]) AS given (id)`,
  );
  return ids;
}

/** Makes tenants and tells their ids. */
export async function insertTenants(db: Queryable, count: number): Promise<string[]> {
  const ids = Array.from({ length: count }, () => newId());
  await db.execute(sql`
    INSERT INTO tenants (id, slug, name) SELECT id, 't-' || id, 'Tenant' FROM unnest(${ids}::uuid[]) AS given (id)`);
  return ids;
}

/** A pod without a place. */
export interface UnplacedPod {
  readonly podId: string;
  readonly tenantId: string;
  readonly vmid: number;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/** Makes one pod that is provisioning and has no place for each of the tenants named (a tenant may be named often). */
export async function insertPods(
  db: Queryable,
  tenantIds: readonly string[],
  size: { readonly cores: number; readonly memoryMb: number; readonly diskGb: number },
): Promise<UnplacedPod[]> {
  const podIds = tenantIds.map(() => newId());
  const { cores, memoryMb, diskGb } = size;
  return await db.query<UnplacedPod>(sql`
    INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, cores, memory_mb, disk_gb, mac)
    SELECT pod_id, tenant_id, next_vmid(), 'pod', 'pod', 'eu', ${cores}, ${memoryMb}, ${diskGb}, 'bc:24:11:00:00:01'
    FROM unnest(${podIds}::uuid[], ${tenantIds}::uuid[]) AS given (pod_id, tenant_id)
    RETURNING id AS "podId", tenant_id AS "tenantId", vmid, cores, memory_mb AS "memoryMb", disk_gb AS "diskGb"`);
}

/**
 * Makes pods that sit on their nodes already, `each` of them on every node, their owners in turn: a fleet that has been in use.
 */
export async function insertPlacedPods(
  db: Queryable,
  nodeIds: readonly string[],
  tenantIds: readonly string[],
  each: number,
): Promise<void> {
  const size = { cores: 1, memoryMb: 1_024, diskGb: 10 };
  const places = nodeIds.flatMap((nodeId) => Array.from({ length: each }, () => nodeId));
  const owners = places.map((_, index) => tenantIds[index % tenantIds.length] ?? "");
  const podIds = (await insertPods(db, owners, size)).map(({ podId }) => podId);
  await db.execute(sql`
    INSERT INTO node_claims (id, tenant_id, pod_id, node_id, storage_id, generation, cpu, memory_mb, disk_gb)
    SELECT gen_random_uuid(), p.tenant_id, p.id, s.node_id, s.id, 1, p.cores, p.memory_mb, p.disk_gb
    FROM unnest(${podIds}::uuid[], ${places}::uuid[]) AS given (pod_id, node_id)
    JOIN cloud_pods p ON p.id = given.pod_id JOIN storages s ON s.node_id = given.node_id`);
  await db.execute(sql`
    INSERT INTO cloud_pod_placements (id, tenant_id, pod_id, node_id, vmid, generation)
    SELECT gen_random_uuid(), p.tenant_id, p.id, given.node_id, p.vmid, 1
    FROM unnest(${podIds}::uuid[], ${places}::uuid[]) AS given (pod_id, node_id) JOIN cloud_pods p ON p.id = given.pod_id`);
  await db.execute(sql`
    UPDATE node_capacity SET cpu_allocated = cpu_allocated + ${each * size.cores}, memory_allocated_mb = memory_allocated_mb + ${each * size.memoryMb}
    WHERE node_id = ANY(${nodeIds}::uuid[])`);
  await db.execute(sql`
    UPDATE storages SET allocated_gb = allocated_gb + ${each * size.diskGb} WHERE node_id = ANY(${nodeIds}::uuid[])`);
}

/** How many nodes and storages have more allocated than may be, or not what their claims add up to. */
export async function countOversold(db: Queryable): Promise<{ oversold: number; differing: number }> {
  const [row] = await db.query<{ oversold: number; differing: number }>(sql`
    SELECT count(*) FILTER (WHERE allocated > allocatable OR claimed > allocatable)::integer AS oversold,
      count(*) FILTER (WHERE allocated <> claimed)::integer AS differing
    FROM (
      SELECT c.cpu_allocated AS allocated, c.cpu_allocatable AS allocatable,
        coalesce((SELECT sum(cpu) FROM node_claims k WHERE k.node_id = c.node_id), 0) AS claimed FROM node_capacity c
      UNION ALL
      SELECT c.memory_allocated_mb, c.memory_allocatable_mb,
        coalesce((SELECT sum(memory_mb) FROM node_claims k WHERE k.node_id = c.node_id), 0) FROM node_capacity c
      UNION ALL
      SELECT s.allocated_gb, s.allocatable_gb, coalesce(k.claimed, 0)
      FROM storages s LEFT JOIN (SELECT storage_id, sum(disk_gb) AS claimed FROM node_claims GROUP BY storage_id) k ON k.storage_id = s.id
    ) AS figures`);
  if (row === undefined) throw new Error("an aggregate returned no row");
  return row;
}
