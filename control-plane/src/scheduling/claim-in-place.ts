import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { NewClaim } from "./claim-node.ts";

/**
 * Claims what a container occupies where it is already, whether or not the host takes orders. A host never promises more
 * than it has, also not what it carries anyway: then its overcommit must be raised or something be moved away first, in
 * the open. It must come after every other lock of the transaction. Owner's login only.
 * @throws DomainError `NO_CAPACITY` naming what is short and by how much
 */
export async function claimInPlace(
  tx: Queryable,
  claim: Omit<NewClaim, "purpose">,
  place: { readonly nodeId: string; readonly storageId: string },
): Promise<void> {
  const { nodeId, storageId } = place;
  const [free] = await tx.query<{ cores: number; memoryMb: number; diskGb: number }>(sql`
    SELECT c.cpu_allocatable - c.cpu_allocated AS cores, c.memory_allocatable_mb - c.memory_allocated_mb AS "memoryMb",
      s.allocatable_gb - s.allocated_gb AS "diskGb"
    FROM node_capacity c, storages s WHERE c.node_id = ${nodeId} AND s.id = ${storageId} FOR NO KEY UPDATE OF c, s`);
  if (free === undefined) throw new Error(`node ${nodeId} has no capacity or no storage ${storageId}`);
  const { cores, memoryMb, diskGb } = claim;
  const short = Object.entries({
    cores: cores - free.cores,
    memoryMb: memoryMb - free.memoryMb,
    diskGb: diskGb - free.diskGb,
  });
  const lacking = Object.fromEntries(short.filter(([, by]) => by > 0));
  if (Object.keys(lacking).length > 0) throw noRoom(lacking);
  await tx.execute(sql`
    UPDATE node_capacity SET cpu_allocated = cpu_allocated + ${cores}, memory_allocated_mb = memory_allocated_mb + ${memoryMb} WHERE node_id = ${nodeId}`);
  await tx.execute(sql`UPDATE storages SET allocated_gb = allocated_gb + ${diskGb} WHERE id = ${storageId}`);
  await tx.execute(sql`
    INSERT INTO node_claims (id, tenant_id, pod_id, node_id, storage_id, generation, cpu, memory_mb, disk_gb)
    VALUES (${newId()}, ${claim.tenantId}, ${claim.podId}, ${nodeId}, ${storageId}, ${claim.generation}, ${cores}, ${memoryMb}, ${diskGb})`);
  await tx.execute(sql`
    INSERT INTO cloud_pod_placements (id, tenant_id, pod_id, node_id, vmid, generation)
    VALUES (${newId()}, ${claim.tenantId}, ${claim.podId}, ${nodeId}, ${claim.vmid}, ${claim.generation})`);
}

function noRoom(lacking: Readonly<Record<string, number>>): DomainError {
  const named = Object.entries(lacking).map(([what, by]) => `${by} ${what}`);
  return new DomainError(
    "no-capacity",
    "NO_CAPACITY",
    `The host carries this container but cannot promise its size: ${named.join(", ")} too little. Raise its overcommit or move something away first.`,
    { details: { lacking } },
  );
}
