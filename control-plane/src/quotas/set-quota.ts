import { checkVersion } from "../http/version-check.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { readQuotaLocked, type QuotaState } from "./quota-row.ts";
import { DEFAULT_TENANT_QUOTA, type TenantQuota } from "./quota.ts";
import { makeQuotaRow } from "./reserve-quota.ts";

/**
 * Gives a tenant limits of his own, or (undefined) the default ones again. They may be below what he uses:
 * nothing is taken away, he only gets no more.
 * @throws DomainError VERSION_MISMATCH when `ifMatch` names another version than the one in force
 */
export async function setQuota(
  tx: Queryable,
  tenantId: string,
  limits: TenantQuota | undefined,
  ifMatch?: number,
): Promise<QuotaState> {
  await makeQuotaRow(tx, tenantId);
  checkVersion(ifMatch, (await readQuotaLocked(tx, tenantId)).version);
  const { max_pods, max_cpu_cores, max_memory_mb, max_disk_gb } = limits ?? DEFAULT_TENANT_QUOTA;
  await tx.execute(sql`
    UPDATE cloud_pod_quotas SET source = ${limits === undefined ? "default" : "tenant"}, max_cloud_pods = ${max_pods},
      max_cpu_cores = ${max_cpu_cores}, max_ram_mb = ${max_memory_mb}, max_disk_gb = ${max_disk_gb}, version = version + 1, updated_at = now()
    WHERE tenant_id = ${tenantId}`);
  return await readQuotaLocked(tx, tenantId);
}
