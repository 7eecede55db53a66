import type { Queryable } from "../platform/database.ts";
import { compareWithQuota } from "./compare-with-quota.ts";
import type { QuotaCheck, RequestedResources, TenantQuota, TenantUsage } from "./quota.ts";
import { readQuota } from "./quota-row.ts";

export { DEFAULT_TENANT_QUOTA } from "./quota.ts";

/** Limits of a tenant. */
export async function getTenantQuota(db: Queryable, tenantId: string): Promise<TenantQuota> {
  return (await readQuota(db, tenantId)).limits;
}

/** What counts against a tenant's quota now. */
export async function getTenantUsage(db: Queryable, tenantId: string): Promise<TenantUsage> {
  return (await readQuota(db, tenantId)).usage;
}

/**
 * Whether a tenant may have that much more at this moment. It promises nothing for the next one: what
 * makes or enlarges a pod calls `reserveQuota`, which checks under a lock.
 */
export async function checkTenantQuota(
  db: Queryable,
  { tenantId, requested }: { readonly tenantId: string; readonly requested: RequestedResources },
): Promise<QuotaCheck> {
  const { limits, usage } = await readQuota(db, tenantId);
  return compareWithQuota(limits, usage, requested);
}
