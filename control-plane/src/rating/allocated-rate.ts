import { Money } from "@cloudpods/shared/money";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/**
 * What a tenant's pods cost by the hour as they are at an instant: plans and disks by the hours of the month (UTC),
 * cores and memory of metered pods that shall run. Traffic is not known beforehand. Ten places, rounded up.
 */
export async function allocatedRatePerHour(db: Queryable, tenantId: string, at: Date): Promise<Money> {
  const [row] = await db.query<{ currency: string; rate: string }>(sql`
    WITH month AS (
      SELECT date_part('epoch', (date_trunc('month', ${at}::timestamptz, 'UTC') AT TIME ZONE 'UTC' + interval '1 month')
        - date_trunc('month', ${at}::timestamptz, 'UTC') AT TIME ZONE 'UTC')::numeric / 3600 AS hours),
    rates AS (
      SELECT CASE WHEN a.billing_mode = 'plan' THEN pp.amount / month.hours
        ELSE a.disk_gb * list.disk_gb_per_month / month.hours + CASE WHEN p.desired_power = 'running' AND p.observed_power <> 'stopped'
          THEN a.cores * list.cpu_per_hour + a.memory_mb / 1024.0 * list.memory_gb_per_hour ELSE 0 END END AS rate
      FROM month, tenants t
      JOIN cloud_pods p ON p.tenant_id = t.id
      JOIN cloud_pod_allocations a ON a.pod_id = p.id AND a.valid @> ${at}::timestamptz
      LEFT JOIN cloud_pod_plan_prices pp ON pp.plan_code = a.plan_code AND pp.currency = t.currency AND pp.valid @> ${at}::timestamptz
      LEFT JOIN LATERAL (
        SELECT l.cpu_per_hour, l.memory_gb_per_hour, l.disk_gb_per_month FROM cloud_pod_pricing l
        WHERE l.currency = t.currency AND (l.name = t.pricing_name OR l.is_default)
          AND l.effective_from <= ${at} AND (l.effective_until IS NULL OR l.effective_until > ${at})
        ORDER BY l.name IS NOT DISTINCT FROM t.pricing_name DESC LIMIT 1) AS list ON true
      WHERE t.id = ${tenantId})
    SELECT currency, (ceil(coalesce((SELECT sum(rate) FROM rates), 0) * 10000000000) / 10000000000)::numeric(20, 10) AS rate FROM tenants WHERE id = ${tenantId}`);
  if (row === undefined) throw new Error(`there is no tenant ${tenantId}`);
  return Money.of(row.rate, row.currency);
}
