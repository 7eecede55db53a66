import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "./pod.ts";

/**
 * The pod has this address from now on. The history answers who had an address at a time; an unchanged
 * address writes nothing.
 */
export async function recordAddress(
  tx: Queryable,
  pod: Pick<Pod, "id" | "tenantId" | "mac">,
  ip: string,
): Promise<void> {
  await tx.execute(sql`UPDATE cloud_pods SET ip = ${ip} WHERE id = ${pod.id} AND ip IS DISTINCT FROM ${ip}`);
  const [current] = await tx.query<{ id: string; ip: string | null }>(sql`
    SELECT id, ip FROM cloud_pod_addresses WHERE pod_id = ${pod.id} AND used_to IS NULL`);
  if (current?.ip === ip) return;
  if (current?.ip === null) {
    await tx.execute(sql`UPDATE cloud_pod_addresses SET ip = ${ip}, used_from = now() WHERE id = ${current.id}`);
    return;
  }
  await releaseAddress(tx, pod.id);
  await tx.execute(sql`
    INSERT INTO cloud_pod_addresses (id, tenant_id, pod_id, mac, ip) VALUES (${newId()}, ${pod.tenantId}, ${pod.id}, ${pod.mac}, ${ip})`);
}

/** The pod's address is free for others from now on. */
export async function releaseAddress(tx: Queryable, podId: string): Promise<void> {
  await tx.execute(sql`UPDATE cloud_pod_addresses SET used_to = now() WHERE pod_id = ${podId} AND used_to IS NULL`);
}
