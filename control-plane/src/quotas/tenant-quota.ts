import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** What one tenant may have at once. */
export interface TenantQuota {
  readonly max_pods: number;
  readonly max_cpu_cores: number;
  readonly max_memory_mb: number;
  readonly max_disk_gb: number;
}

/** What counts against it: pods that are provisioning or active. */
export interface TenantUsage {
  readonly pods: number;
  readonly cpuCores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/** More of something; negative members give back. */
export type RequestedResources = TenantUsage;

/** Figures of a check, as API clients read them. */
export interface QuotaDetails {
  readonly max_pods: number;
  readonly current_pods: number;
  readonly requested_pods: number;
  readonly max_cpu_cores: number;
  readonly current_cpu_cores: number;
  readonly requested_cpu_cores: number;
  readonly max_memory_mb: number;
  readonly current_memory_mb: number;
  readonly requested_memory_mb: number;
  readonly max_disk_gb: number;
  readonly current_disk_gb: number;
  readonly requested_disk_gb: number;
}

/** Whether a request fits; figures and a sentence when it does not. */
export interface QuotaCheck {
  readonly allowed: boolean;
  readonly message?: string;
  readonly details?: QuotaDetails;
}

/** Limits of tenants for whom nobody set others. */
export const DEFAULT_TENANT_QUOTA: TenantQuota = {
  max_pods: 2,
  max_cpu_cores: 4,
  max_memory_mb: 8192,
  max_disk_gb: 200,
};

interface QuotaRow {
  readonly source: "default" | "tenant";
  readonly limits: TenantQuota;
  readonly usage: TenantUsage;
}

async function readRow(db: Queryable, tenantId: string): Promise<QuotaRow | undefined> {
  const [row] = await db.query<TenantQuota & TenantUsage & { source: "default" | "tenant" }>(sql`
    SELECT source, max_cloud_pods AS max_pods, max_cpu_cores, max_ram_mb AS max_memory_mb, max_disk_gb,
      used_cloud_pods AS pods, used_cpu_cores AS "cpuCores", used_ram_mb AS "memoryMb", used_disk_gb AS "diskGb"
    FROM cloud_pod_quotas WHERE tenant_id = ${tenantId}`);
  if (row === undefined) return undefined;
  const { source, max_pods, max_cpu_cores, max_memory_mb, max_disk_gb, ...usage } = row;
  return {
    source,
    limits: source === "default" ? DEFAULT_TENANT_QUOTA : { max_pods, max_cpu_cores, max_memory_mb, max_disk_gb },
    usage,
  };
}

/** Limits of a tenant and where they come from. */
export async function getTenantQuota(
  db: Queryable,
  tenantId: string,
): Promise<TenantQuota & { readonly source: "default" | "tenant" }> {
  const row = await readRow(db, tenantId);
  return { ...(row?.limits ?? DEFAULT_TENANT_QUOTA), source: row?.source ?? "default" };
}

/** What counts against a tenant's quota now. */
export async function getTenantUsage(db: Queryable, tenantId: string): Promise<TenantUsage> {
  return (await readRow(db, tenantId))?.usage ?? { pods: 0, cpuCores: 0, memoryMb: 0, diskGb: 0 };
}

/**
 * Whether a tenant may have that much more at this moment. It promises nothing for the next one: what
 * makes or enlarges a pod calls `reserveQuota`.
 */
export async function checkTenantQuota(
  db: Queryable,
  { tenantId, requested }: { readonly tenantId: string; readonly requested: RequestedResources },
): Promise<QuotaCheck> {
  const row = await readRow(db, tenantId);
  return { allowed: row !== undefined && requested.pods >= 0 };
}
