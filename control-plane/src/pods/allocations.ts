import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "./pod.ts";

/**
 * From `at` on the pod is what its row says; what it was before ends there. Called in the transaction in
 * which the host's confirmation is taken in, because money follows this history.
 */
export async function recordAllocation(tx: Queryable, pod: Pod, at: Date): Promise<void> {
  await closeAllocation(tx, pod.id, at);
  await tx.execute(sql`
    INSERT INTO cloud_pod_allocations (id, tenant_id, pod_id, valid, plan_code, plan_price_id, billing_mode, cores, memory_mb, disk_gb)
    SELECT ${newId()}, p.tenant_id, p.id, tstzrange(${at}, NULL), p.plan_code,
      (SELECT price.id FROM cloud_pod_plan_prices price JOIN tenants t ON t.currency = price.currency
       WHERE t.id = p.tenant_id AND price.plan_code = p.plan_code AND price.valid @> ${at}::timestamptz),
      p.billing_mode, p.cores, p.memory_mb, p.disk_gb
    FROM cloud_pods p WHERE p.id = ${pod.id}`);
}

/** Ends the running allocation at `at`. One that began at or after `at` never was and goes. */
export async function closeAllocation(tx: Queryable, podId: string, at: Date): Promise<void> {
  await tx.execute(
    sql`DELETE FROM cloud_pod_allocations WHERE pod_id = ${podId} AND upper_inf(valid) AND lower(valid) >= ${at}::timestamptz`,
  );
  await tx.execute(sql`
    UPDATE cloud_pod_allocations SET valid = tstzrange(lower(valid), ${at}) WHERE pod_id = ${podId} AND upper_inf(valid)`);
}
