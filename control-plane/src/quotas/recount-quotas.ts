import type { Database, Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { makeQuotaRow } from "./reserve-quota.ts";
import type { TenantUsage } from "./quota.ts";

/** A tenant whose counters were not what its pods add up to. */
export interface QuotaDifference {
  readonly tenantId: string;
  readonly counted: TenantUsage;
  readonly actual: TenantUsage;
}

interface DifferenceRow {
  readonly tenantId: string;
  readonly countedPods: number;
  readonly countedCores: number;
  readonly countedMemoryMb: number;
  readonly countedDiskGb: number;
  readonly pods: number;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/**
 * Compares every quota counter with the tenant's provisioning and active pods, puts wrong ones right and
 * writes each repair to the audit log. Counters move with their pods, so a difference is a fault of ours.
 * @returns what was repaired
 */
export async function recountQuotas(db: Database): Promise<QuotaDifference[]> {
  const suspects = await readDifferences(db, null);
  const repaired: QuotaDifference[] = [];
  for (const { tenantId } of suspects) {
    const difference = await db.transaction((tx) => repair(tx, tenantId));
    if (difference !== undefined) repaired.push(difference);
  }
  return repaired;
}

async function repair(tx: Queryable, tenantId: string): Promise<QuotaDifference | undefined> {
  await makeQuotaRow(tx, tenantId);
  await tx.query(sql`SELECT FROM cloud_pod_quotas WHERE tenant_id = ${tenantId} FOR UPDATE`);
  // A statement of its own: it sees what the holders of the lock before us committed.
  const [difference] = await readDifferences(tx, tenantId);
  if (difference === undefined) return undefined;
  const { actual } = difference;
  await tx.execute(sql`
    UPDATE cloud_pod_quotas SET used_cloud_pods = ${actual.pods}, used_cpu_cores = ${actual.cpuCores},
      used_ram_mb = ${actual.memoryMb}, used_disk_gb = ${actual.diskGb}, updated_at = now()
    WHERE tenant_id = ${tenantId}`);
  await recordAudit(tx, {
    actor: systemActor("quota-recount"),
    requestId: undefined,
    tenantId,
    action: "quota.repair",
    targetType: "quota",
    targetId: tenantId,
    detail: { counted: difference.counted, actual },
  });
  return difference;
}

async function readDifferences(db: Queryable, tenantId: string | null): Promise<QuotaDifference[]> {
  const rows = await db.query<DifferenceRow>(sql`
    SELECT * FROM (
      SELECT coalesce(q.tenant_id, p.tenant_id) AS "tenantId",
        coalesce(q.used_cloud_pods, 0) AS "countedPods", coalesce(q.used_cpu_cores, 0) AS "countedCores",
        coalesce(q.used_ram_mb, 0) AS "countedMemoryMb", coalesce(q.used_disk_gb, 0) AS "countedDiskGb",
        coalesce(p.pods, 0) AS pods, coalesce(p.cores, 0) AS cores, coalesce(p.memory_mb, 0) AS "memoryMb", coalesce(p.disk_gb, 0) AS "diskGb"
      FROM cloud_pod_quotas q FULL JOIN (
        SELECT tenant_id, count(*)::integer AS pods, sum(cores)::integer AS cores, sum(memory_mb)::integer AS memory_mb, sum(disk_gb)::integer AS disk_gb
        FROM cloud_pods
        WHERE status IN ('provisioning', 'active') AND (${tenantId}::uuid IS NULL OR tenant_id = ${tenantId}::uuid)
        GROUP BY tenant_id) p ON p.tenant_id = q.tenant_id
      WHERE ${tenantId}::uuid IS NULL OR coalesce(q.tenant_id, p.tenant_id) = ${tenantId}::uuid) AS counts
    WHERE ("countedPods", "countedCores", "countedMemoryMb", "countedDiskGb") <> (pods, cores, "memoryMb", "diskGb")
    ORDER BY "tenantId"`);
  return rows.map((row) => ({
    tenantId: row.tenantId,
    counted: {
      pods: row.countedPods,
      cpuCores: row.countedCores,
      memoryMb: row.countedMemoryMb,
      diskGb: row.countedDiskGb,
    },
    actual: { pods: row.pods, cpuCores: row.cores, memoryMb: row.memoryMb, diskGb: row.diskGb },
  }));
}
