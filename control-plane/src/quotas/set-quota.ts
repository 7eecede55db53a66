import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { readQuotaLocked, type QuotaState } from "./quota-row.ts";
import { DEFAULT_TENANT_QUOTA, type TenantQuota } from "./quota.ts";

/**
 * Gives a tenant limits of his own, or (undefined) the default ones again. They may be below what he uses:
 * nothing is taken away, he only gets no more.
 */
export async function setQuota(tx: Queryable, tenantId: string, limits: TenantQuota | undefined): Promise<QuotaState> {
  const { max_pods, max_cpu_cores, max_memory_mb, max_disk_gb } = limits ?? DEFAULT_TENANT_QUOTA;
  await tx.execute(sql`
    INSERT INTO cloud_pod_quotas (tenant_id, source, max_cloud_pods, max_cpu_cores, max_ram_mb, max_disk_gb)
    VALUES (${tenantId}, ${limits === undefined ? "default" : "tenant"}, ${max_pods}, ${max_cpu_cores}, ${max_memory_mb}, ${max_disk_gb})
    ON CONFLICT (tenant_id) DO UPDATE SET source = excluded.source, max_cloud_pods = excluded.max_cloud_pods,
      max_cpu_cores = excluded.max_cpu_cores, max_ram_mb = excluded.max_ram_mb, max_disk_gb = excluded.max_disk_gb, updated_at = now()`);
  return await readQuotaLocked(tx, tenantId);
}
