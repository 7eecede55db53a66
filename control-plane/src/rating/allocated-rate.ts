import { Money } from "@cloudpods/shared/money";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { listInForce } from "./pricing.ts";

/** What pods cost by what they are, whatever was measured. Ten places, rounded up. */
export interface AllocatedCost {
  /** Plans and disks by the hours of the month (UTC), cores and memory of metered pods that shall run; traffic is not known beforehand. */
  readonly perHour: Money;
  /** Cores and memory of such pods since their hosts last reported, this month: accrued once that is measured, at most this. */
  readonly unmeasured: Money;
}

/** What a tenant's pods cost as they are at an instant. */
export async function allocatedCost(db: Queryable, tenantId: string, at: Date): Promise<AllocatedCost> {
  const [row] = await db.query<{ currency: string; perHour: string; unmeasured: string }>(sql`
    WITH month AS (
      SELECT starts, date_part('epoch', ((starts AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC' - starts)::numeric / 3600 AS hours
      FROM date_trunc('month', ${at}::timestamptz, 'UTC') AS starts),
    rates AS (
      SELECT CASE WHEN a.billing_mode = 'plan' THEN pp.amount ELSE a.disk_gb * list.disk_gb_per_month END / month.hours AS existing,
        CASE WHEN a.billing_mode = 'metered' AND p.desired_power = 'running' AND p.observed_power <> 'stopped'
          THEN a.cores * list.cpu_per_hour + a.memory_mb / 1024.0 * list.memory_gb_per_hour ELSE 0 END AS running,
        greatest(0, date_part('epoch', ${at} - greatest(month.starts, lower(a.valid), (
          SELECT max(s.complete_until) FROM node_spools s WHERE s.node_id = p.node_id))))::numeric / 3600 AS silent_hours
      FROM month, tenants t
      JOIN cloud_pods p ON p.tenant_id = t.id
      JOIN cloud_pod_allocations a ON a.pod_id = p.id AND a.valid @> ${at}::timestamptz
      LEFT JOIN cloud_pod_plan_prices pp ON pp.plan_code = a.plan_code AND pp.currency = t.currency AND pp.valid @> ${at}::timestamptz
      LEFT JOIN LATERAL (
        SELECT p.cpu_per_hour, p.memory_gb_per_hour, p.disk_gb_per_month
        ${listInForce(sql`t.currency`, sql`t.pricing_name`, sql`${at}`)}) AS list ON true
      WHERE t.id = ${tenantId}),
    sums AS (
      SELECT coalesce(sum(coalesce(existing, 0) + coalesce(running, 0)), 0) AS per_hour, coalesce(sum(running * silent_hours), 0) AS unmeasured FROM rates)
    SELECT currency, (ceil(per_hour * 10000000000) / 10000000000)::numeric(20, 10) AS "perHour",
      (ceil(unmeasured * 10000000000) / 10000000000)::numeric(20, 10) AS unmeasured
    FROM tenants, sums WHERE id = ${tenantId}`);
  if (row === undefined) throw new Error(`there is no tenant ${tenantId}`);
  return { perHour: Money.of(row.perHour, row.currency), unmeasured: Money.of(row.unmeasured, row.currency) };
}
