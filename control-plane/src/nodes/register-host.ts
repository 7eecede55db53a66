import type { Hello } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** Takes over what a host says about itself when a session begins: its capacity, its Proxmox name and its cluster. */
export async function registerHost(tx: Transaction, nodeId: string, hello: Hello): Promise<void> {
  const capacity = hello.capacity;
  if (capacity !== undefined && capacity.cpuCores > 0 && capacity.memoryMb > 0) {
    await tx.execute(sql`
      UPDATE node_capacity SET cpu_total = ${capacity.cpuCores}, memory_total_mb = ${capacity.memoryMb}
      WHERE node_id = ${nodeId} AND (cpu_total <> ${capacity.cpuCores} OR memory_total_mb <> ${capacity.memoryMb})`);
  }
  const clusterId = hello.clusterName === "" ? null : await findOrMakeCluster(tx, nodeId, hello.clusterName);
  const pveName = hello.pveName === "" ? null : hello.pveName;
  await tx.execute(sql`
    UPDATE nodes SET pve_name = coalesce(${pveName}, pve_name), cluster_id = ${clusterId}
    WHERE id = ${nodeId} AND (pve_name IS DISTINCT FROM coalesce(${pveName}, pve_name) OR cluster_id IS DISTINCT FROM ${clusterId}::uuid)`);
}

/** Proxmox gives a cluster nothing but a name; two of the same name are told apart by their region. */
async function findOrMakeCluster(tx: Transaction, nodeId: string, name: string): Promise<string | null> {
  const [cluster] = await tx.query<{ id: string }>(sql`
    INSERT INTO clusters (id, name, fingerprint)
    SELECT ${newId()}, ${name}, region || '/' || ${name} FROM nodes WHERE id = ${nodeId}
    ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name RETURNING id`);
  return cluster?.id ?? null;
}
