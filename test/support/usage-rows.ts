import type { Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";

/** What a test says of a pod's day; the rest is nought. */
export interface UsageDayWish {
  readonly tenantId: string;
  readonly podId: string;
  /** "2026-01-31" */
  readonly date: string;
  readonly currency?: string;
  readonly uptimeMs?: bigint;
  readonly outBytes?: bigint;
  readonly inBytes?: bigint;
  readonly coreMs?: bigint;
  readonly memoryMbMs?: bigint;
  readonly diskGbMs?: bigint;
  readonly lateMs?: bigint;
  readonly notRunningMs?: bigint;
  readonly missingMs?: bigint;
  readonly costCpu?: string;
  readonly costDisk?: string;
  readonly costNetworkOut?: string;
  readonly costPlan?: string;
}

/** Writes a pod's day as a roll-up would: for tests of what is read from it. */
export async function insertUsageDay(db: Database, day: UsageDayWish): Promise<void> {
  const uptimeMs = day.uptimeMs ?? 0n;
  await db.execute(sql`
    INSERT INTO cloud_pod_usage_daily (date, pod_id, tenant_id, sample_count, uptime_ms, running_ms, cpu_usage_us, cpu_capacity_ms,
      cpu_max_basis_points, cpu_histogram, memory_byte_ms, memory_max_bytes, disk_byte_ms, disk_max_bytes, guest_in_bytes, guest_out_bytes,
      io_read_bytes, io_write_bytes, measured_ms, late_ms, not_running_ms, missing_ms, core_ms, memory_mb_ms, disk_gb_ms,
      billable_in_bytes, billable_out_bytes, plan_out_bytes, unpriced_ms, currency, cost_cpu, cost_memory, cost_disk, cost_network_in,
      cost_network_out, cost_plan, hours)
    VALUES (${day.date}, ${day.podId}, ${day.tenantId}, 1, ${uptimeMs}, ${uptimeMs}, 0, 0, 0, '{}', 0, 0, 0, 0, ${day.inBytes ?? 0n},
      ${day.outBytes ?? 0n}, 0, 0, ${uptimeMs}, ${day.lateMs ?? 0n}, ${day.notRunningMs ?? 0n}, ${day.missingMs ?? 0n},
      ${day.coreMs ?? 0n}, ${day.memoryMbMs ?? 0n}, ${day.diskGbMs ?? 0n}, ${day.inBytes ?? 0n}, ${day.outBytes ?? 0n}, 0, 0,
      ${day.currency ?? "USD"}, ${day.costCpu ?? "0"}, 0, ${day.costDisk ?? "0"}, 0, ${day.costNetworkOut ?? "0"}, ${day.costPlan ?? "0"}, 24)`);
}

/** What a test says of a pod's month. */
export interface UsageMonthWish {
  readonly tenantId: string;
  readonly podId: string;
  readonly yearMonth: string;
  readonly costPlan?: string;
  readonly costOverage?: string;
  readonly overageBytes?: bigint;
  /** What was billed when the month was closed; undefined: it is open. */
  readonly billedCost?: string;
  readonly adjustedCost?: string;
}

/** Writes a pod's month as a roll-up would. */
export async function insertUsageMonth(db: Database, month: UsageMonthWish): Promise<void> {
  await db.execute(sql`
    INSERT INTO cloud_pod_usage_monthly (year_month, pod_id, tenant_id, sample_count, uptime_ms, running_ms, cpu_usage_us, cpu_capacity_ms,
      cpu_max_basis_points, memory_byte_ms, memory_max_bytes, disk_byte_ms, disk_max_bytes, guest_in_bytes, guest_out_bytes,
      io_read_bytes, io_write_bytes, measured_ms, late_ms, not_running_ms, missing_ms, core_ms, memory_mb_ms, disk_gb_ms,
      billable_in_bytes, billable_out_bytes, plan_out_bytes, overage_bytes, unpriced_ms, currency, cost_cpu, cost_memory, cost_disk,
      cost_network_in, cost_network_out, cost_plan, cost_overage, days, closed_at, billed_cost, adjusted_cost)
    VALUES (${month.yearMonth}, ${month.podId}, ${month.tenantId}, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
      ${month.overageBytes ?? 0n}, 0, 'USD', 0, 0, 0, 0, 0, ${month.costPlan ?? "0"}, ${month.costOverage ?? "0"}, 31,
      ${month.billedCost === undefined ? null : new Date()}, ${month.billedCost ?? null}, ${month.adjustedCost ?? "0"})`);
}
