import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { judgeGrowth, type Footprint } from "./growth-verdict.ts";
import { NoCapacityError } from "./no-capacity.ts";

/**
 * Gives back what a placement of a pod occupies and ends its placement history. To be called when the
 * host confirmed that the container is gone. Doing it twice is as good as once. Owner's login only.
 */
export async function releaseClaim(tx: Queryable, podId: string, generation: bigint): Promise<void> {
  await tx.execute(sql`
    WITH held AS MATERIALIZED (
      SELECT k.id FROM node_claims k JOIN node_capacity c ON c.node_id = k.node_id
      WHERE k.pod_id = ${podId} AND k.generation = ${generation} FOR NO KEY UPDATE OF c),
    gone AS (
      DELETE FROM node_claims k USING held WHERE k.id = held.id
      RETURNING k.node_id, k.storage_id, k.cpu, k.memory_mb, k.disk_gb),
    freed AS (
      UPDATE node_capacity c SET cpu_allocated = c.cpu_allocated - gone.cpu, memory_allocated_mb = c.memory_allocated_mb - gone.memory_mb
      FROM gone WHERE c.node_id = gone.node_id RETURNING gone.storage_id, gone.disk_gb),
    emptied AS (
      UPDATE storages s SET allocated_gb = s.allocated_gb - freed.disk_gb FROM freed WHERE s.id = freed.storage_id)
    UPDATE cloud_pod_placements SET placed_to = now()
    WHERE pod_id = ${podId} AND generation = ${generation} AND placed_to IS NULL`);
}

/** What a pod occupies now; undefined for one without a place. Works under both logins. */
export async function readClaim(tx: Queryable, podId: string): Promise<Footprint | undefined> {
  const [claim] = await tx.query<Footprint>(sql`
    SELECT k.cpu AS cores, k.memory_mb AS "memoryMb", k.disk_gb AS "diskGb"
    FROM node_claims k JOIN cloud_pods p ON p.id = k.pod_id AND p.generation = k.generation WHERE k.pod_id = ${podId}`);
  return claim;
}

interface ClaimedPlace {
  readonly claimId: string;
  readonly nodeId: string;
  readonly storageId: string;
}

/**
 * Changes what a pod occupies where it is now. Less is always possible, even on a node that shrank below
 * what is promised of it. Works under both logins.
 * @throws NoCapacityError (NO_CAPACITY, 503) when an increase does not fit the node or its storage
 */
export async function growClaim(tx: Queryable, podId: string, delta: Footprint): Promise<void> {
  if (delta.cores === 0 && delta.memoryMb === 0 && delta.diskGb === 0) return;
  const [place] = await tx.query<ClaimedPlace>(sql`
    SELECT k.id AS "claimId", k.node_id AS "nodeId", k.storage_id AS "storageId"
    FROM node_claims k JOIN cloud_pods p ON p.id = k.pod_id AND p.generation = k.generation
    JOIN node_capacity c ON c.node_id = k.node_id
    WHERE k.pod_id = ${podId} FOR NO KEY UPDATE OF c`);
  if (place === undefined) throw new Error(`pod ${podId} occupies no node`);
  const { cores, memoryMb, diskGb } = delta;
  const onNode = await tx.execute(sql`
    UPDATE node_capacity SET cpu_allocated = cpu_allocated + ${cores}, memory_allocated_mb = memory_allocated_mb + ${memoryMb}
    WHERE node_id = ${place.nodeId} AND (${cores} <= 0 OR cpu_allocated + ${cores} <= cpu_allocatable)
      AND (${memoryMb} <= 0 OR memory_allocated_mb + ${memoryMb} <= memory_allocatable_mb)`);
  if (onNode === 0) throw await noRoom(tx, podId, delta, delta);
  const onStorage = await tx.execute(sql`
    UPDATE storages SET allocated_gb = allocated_gb + ${diskGb}
    WHERE id = ${place.storageId} AND (${diskGb} <= 0 OR allocated_gb + ${diskGb} <= allocatable_gb)`);
  if (onStorage === 0) throw await noRoom(tx, podId, delta, { cores: 0, memoryMb: 0, diskGb });
  await tx.execute(sql`
    UPDATE node_claims SET cpu = cpu + ${cores}, memory_mb = memory_mb + ${memoryMb}, disk_gb = disk_gb + ${diskGb}
    WHERE id = ${place.claimId}`);
}

/** No customer learns by how much. */
async function noRoom(tx: Queryable, podId: string, delta: Footprint, unmet: Footprint): Promise<NoCapacityError> {
  const { request, verdict } = await judgeGrowth(tx, podId, delta, unmet);
  const names = verdict.reasons.map(({ filter }) => filter).join(", ");
  return new NoCapacityError(request, verdict, `The pod's node has no room for this size (${names}).`);
}
