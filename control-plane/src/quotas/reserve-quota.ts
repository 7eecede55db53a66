import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { compareWithQuota } from "./compare-with-quota.ts";
import { DEFAULT_TENANT_QUOTA, type QuotaCheck, type RequestedResources } from "./quota.ts";
import { readQuotaLocked } from "./quota-row.ts";

/**
 * Counts more (or, where negative, less) against a tenant's quota in the caller's transaction and keeps the
 * tenant's quota row locked to its end. Only what increases is checked. Its lock comes after that of a pod that is
 * there already, and before the row of a new one and all of hosts. Works under both logins.
 * @throws DomainError `quota-exceeded` QUOTA_EXCEEDED with the figures as details; `wrong-state` TENANT_CLOSED
 */
export async function reserveQuota(tx: Queryable, tenantId: string, requested: RequestedResources): Promise<void> {
  // The usual case is one statement: the row exists and the request fits.
  if (!(await count(tx, tenantId, requested, fits(requested)))) {
    await makeQuotaRow(tx, tenantId);
    const { limits, usage } = await readQuotaLocked(tx, tenantId);
    const check = compareWithQuota(limits, usage, requested);
    if (!check.allowed) throw quotaExceeded(check);
    await count(tx, tenantId, requested, sql`true`);
  }
  if (requested.pods > 0) await requireNotClosed(tx, tenantId);
}

/** Asked under the lock of the quota row, which whoever closes a tenant holds too: of a first pod and the end one comes to pass. */
async function requireNotClosed(tx: Queryable, tenantId: string): Promise<void> {
  const closed = await tx.query(sql`SELECT FROM tenants WHERE id = ${tenantId} AND status = 'closed'`);
  if (closed.length > 0)
    throw new DomainError("wrong-state", "TENANT_CLOSED", "The tenant is closed: it gets no pods.");
}

/** Keeps a tenant's quota row locked to the end of the transaction: no pod begins to be counted meanwhile. */
export async function lockQuota(tx: Queryable, tenantId: string): Promise<void> {
  await makeQuotaRow(tx, tenantId);
  await readQuotaLocked(tx, tenantId);
}

/** Gives back what a pod counted against its tenant's quota; never refused. */
export async function releaseQuota(tx: Queryable, tenantId: string, released: RequestedResources): Promise<void> {
  await countQuota(tx, tenantId, {
    pods: -released.pods,
    cpuCores: -released.cpuCores,
    memoryMb: -released.memoryMb,
    diskGb: -released.diskGb,
  });
}

/** Counts what is there whatever the limit says, e.g. when a pod could not be made smaller after all. */
export async function countQuota(tx: Queryable, tenantId: string, more: RequestedResources): Promise<void> {
  await count(tx, tenantId, more, sql`true`);
}

/** The refusal of a request that does not fit, e.g. for a dry run that used `checkTenantQuota`. */
export function quotaExceeded(check: QuotaCheck): DomainError {
  return new DomainError("quota-exceeded", "QUOTA_EXCEEDED", check.message ?? "The quota would be exceeded.", {
    details: { ...check.details },
  });
}

/**
 * A row to count in and to lock. It says `default`, because a row must not change the limits of a tenant
 * whom nobody gave others: the column defaults are those of a row that an administrator makes.
 */
export async function makeQuotaRow(tx: Queryable, tenantId: string): Promise<void> {
  const { max_pods, max_cpu_cores, max_memory_mb, max_disk_gb } = DEFAULT_TENANT_QUOTA;
  await tx.execute(sql`
    INSERT INTO cloud_pod_quotas (tenant_id, source, max_cloud_pods, max_cpu_cores, max_ram_mb, max_disk_gb)
    VALUES (${tenantId}, 'default', ${max_pods}, ${max_cpu_cores}, ${max_memory_mb}, ${max_disk_gb})
    ON CONFLICT (tenant_id) DO NOTHING`);
}

async function count(tx: Queryable, tenantId: string, more: RequestedResources, condition: Sql): Promise<boolean> {
  // Giving back stops at nought: a wrong counter is the recount's business and must not block a release.
  const touched = await tx.execute(sql`
    UPDATE cloud_pod_quotas SET
      used_cloud_pods = greatest(0, used_cloud_pods + ${more.pods}),
      used_cpu_cores = greatest(0, used_cpu_cores + ${more.cpuCores}),
      used_ram_mb = greatest(0, used_ram_mb + ${more.memoryMb}),
      used_disk_gb = greatest(0, used_disk_gb + ${more.diskGb}),
      updated_at = now()
    WHERE tenant_id = ${tenantId} AND ${condition}`);
  return touched === 1;
}

/** True where every increase stays below its limit; PostgreSQL asks it again of the newest row after waiting for the lock. */
function fits(more: RequestedResources): Sql {
  const { max_pods, max_cpu_cores, max_memory_mb, max_disk_gb } = DEFAULT_TENANT_QUOTA;
  return sql`
    (${more.pods} <= 0 OR used_cloud_pods + ${more.pods} <= CASE source WHEN 'default' THEN ${max_pods} ELSE max_cloud_pods END)
    AND (${more.cpuCores} <= 0 OR used_cpu_cores + ${more.cpuCores} <= CASE source WHEN 'default' THEN ${max_cpu_cores} ELSE max_cpu_cores END)
    AND (${more.memoryMb} <= 0 OR used_ram_mb + ${more.memoryMb} <= CASE source WHEN 'default' THEN ${max_memory_mb} ELSE max_ram_mb END)
    AND (${more.diskGb} <= 0 OR used_disk_gb + ${more.diskGb} <= CASE source WHEN 'default' THEN ${max_disk_gb} ELSE max_disk_gb END)`;
}
