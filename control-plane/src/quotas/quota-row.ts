import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { DEFAULT_TENANT_QUOTA, type QuotaSource, type TenantQuota, type TenantUsage } from "./quota.ts";

/** A tenant's quota as it holds now. */
export interface QuotaState {
  /** Of source and limits; 0 where nobody has decided them. */
  readonly version: number;
  readonly source: QuotaSource;
  readonly limits: TenantQuota;
  readonly usage: TenantUsage;
}

const none: TenantUsage = { pods: 0, cpuCores: 0, memoryMb: 0, diskGb: 0 };

/** Reads a tenant's quota. A tenant without a row has the default limits and uses nothing. */
export async function readQuota(db: Queryable, tenantId: string): Promise<QuotaState> {
  return await read(db, tenantId, false);
}

/** As `readQuota`, and keeps the row locked to the end of the transaction. The row must exist. */
export async function readQuotaLocked(tx: Queryable, tenantId: string): Promise<QuotaState> {
  return await read(tx, tenantId, true);
}

async function read(db: Queryable, tenantId: string, locked: boolean): Promise<QuotaState> {
  const [row] = await db.query<TenantQuota & TenantUsage & Pick<QuotaState, "source" | "version">>(sql`
    SELECT source, version, max_cloud_pods AS max_pods, max_cpu_cores, max_ram_mb AS max_memory_mb, max_disk_gb,
      used_cloud_pods AS pods, used_cpu_cores AS "cpuCores", used_ram_mb AS "memoryMb", used_disk_gb AS "diskGb"
    FROM cloud_pod_quotas WHERE tenant_id = ${tenantId} ${locked ? sql`FOR UPDATE` : sql``}`);
  if (row === undefined) return { version: 0, source: "default", limits: DEFAULT_TENANT_QUOTA, usage: none };
  const { version, source, max_pods, max_cpu_cores, max_memory_mb, max_disk_gb, ...usage } = row;
  const ownLimits = { max_pods, max_cpu_cores, max_memory_mb, max_disk_gb };
  return { version, source, limits: source === "default" ? DEFAULT_TENANT_QUOTA : ownLimits, usage };
}
