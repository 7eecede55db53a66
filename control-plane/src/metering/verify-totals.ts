import { sql, type Sql } from "../platform/sql.ts";
import { overageTables } from "../rating/overage.ts";
import { nameColumns } from "./evidence.ts";
import { addedFigures } from "./roll-up-days.ts";
import { differences, type MonthRange } from "./verify-differences.ts";

/** A day is the sum of its hours. */
export function hoursAgainstDays({ month, from, to }: MonthRange): Sql {
  return sql`
    WITH summed AS (
      SELECT pod_id, (hour_start AT TIME ZONE 'UTC')::date AS date, ${nameColumns(addedFigures, (name) => `sum(${name}) AS ${name}`)}
      FROM cloud_pod_usage_hourly WHERE hour_start >= ${from} AND hour_start < ${to} GROUP BY 1, 2),
    comparable AS (
      SELECT day::date AS date FROM generate_series(${`${month}-01`}::date, ${`${month}-01`}::date + interval '1 month' - interval '1 day', '1 day') AS day
      WHERE NOT EXISTS (SELECT FROM usage_dirty_days m WHERE m.date = day::date) AND NOT EXISTS (SELECT FROM usage_days u WHERE u.day = day::date AND u.hours_archived_at IS NOT NULL))
    ${differences("hours-days", addedFigures, {
      from: sql`(SELECT summed.* FROM summed JOIN comparable USING (date)) AS expected
        FULL JOIN (SELECT d.* FROM cloud_pod_usage_daily d JOIN comparable USING (date)) AS found USING (pod_id, date)`,
      podId: sql`pod_id`,
      period: sql`date`,
    })}`;
}

/** A month is the sum of its days. */
export function daysAgainstMonths({ month }: MonthRange): Sql {
  return sql`
    WITH summed AS (
      SELECT pod_id, ${nameColumns(addedFigures, (name) => `sum(${name}) AS ${name}`)} FROM cloud_pod_usage_daily
      WHERE date >= ${`${month}-01`}::date AND date < ${`${month}-01`}::date + interval '1 month' GROUP BY 1),
    comparable AS (
      SELECT WHERE NOT EXISTS (SELECT FROM usage_dirty_months WHERE year_month = ${month}) AND NOT EXISTS (SELECT FROM usage_months WHERE year_month = ${month}))
    ${differences("days-months", addedFigures, {
      from: sql`comparable, (SELECT * FROM summed) AS expected FULL JOIN (SELECT * FROM cloud_pod_usage_monthly WHERE year_month = ${month}) AS found USING (pod_id)`,
      podId: sql`pod_id`,
      period: sql`${month}::text`,
    })}`;
}

/** What was charged beyond the plans' gigabytes is what the hours of the month say. */
export function overageOfMonths({ month, from, to }: MonthRange): Sql {
  return sql`
    WITH counted_hours AS (SELECT pod_id, tenant_id, hour_start, plan_out_bytes, allowance_gb FROM cloud_pod_usage_hourly WHERE hour_start >= ${from} AND hour_start < ${to}),
    ${overageTables},
    comparable AS (
      SELECT WHERE NOT EXISTS (SELECT FROM usage_dirty_months WHERE year_month = ${month}) AND NOT EXISTS (SELECT FROM usage_dirty_days WHERE to_char(date, 'YYYY-MM') = ${month})
        AND NOT EXISTS (SELECT FROM usage_days WHERE to_char(day, 'YYYY-MM') = ${month} AND hours_archived_at IS NOT NULL))
    ${differences("overage-months", ["overage_bytes", "cost_overage"], {
      from: sql`comparable, overages AS expected FULL JOIN (SELECT * FROM cloud_pod_usage_monthly WHERE year_month = ${month}) AS found USING (pod_id)`,
      podId: sql`pod_id`,
      period: sql`${month}::text`,
    })}`;
}

/** What was billed and what was adjusted since is what the month comes to. */
export function billsOfMonths({ month }: MonthRange): Sql {
  return sql`
    SELECT 'bills' AS "check", m.pod_id AS "podId", m.year_month::text AS period, 'cost_total' AS figure, m.cost_total::text AS expected,
      (m.billed_cost + coalesce(a.amount, 0))::text AS found
    FROM cloud_pod_usage_monthly m LEFT JOIN (
      SELECT pod_id, sum(amount) AS amount FROM usage_adjustments WHERE year_month = ${month} GROUP BY pod_id) AS a USING (pod_id)
    WHERE m.year_month = ${month} AND m.closed_at IS NOT NULL
      AND (m.cost_total <> m.billed_cost + coalesce(a.amount, 0) OR m.adjusted_cost <> coalesce(a.amount, 0))
    UNION ALL
    SELECT 'bills', NULL, c.year_month::text, 'billed_cost of tenant ' || c.tenant_id, c.billed_cost::text, coalesce(sum(m.billed_cost), 0)::text
    FROM usage_closed_months c LEFT JOIN cloud_pod_usage_monthly m USING (tenant_id, year_month)
    WHERE c.year_month = ${month} GROUP BY c.tenant_id, c.year_month, c.billed_cost HAVING c.billed_cost <> coalesce(sum(m.billed_cost), 0)`;
}

/** Time for which no price was in force was charged nothing, and somebody should know. */
export function unpricedTime({ month }: MonthRange): Sql {
  return sql`
    SELECT 'unpriced' AS "check", pod_id AS "podId", year_month::text AS period, 'unpriced_ms' AS figure, '0' AS expected, unpriced_ms::text AS found
    FROM cloud_pod_usage_monthly WHERE year_month = ${month} AND unpriced_ms > 0`;
}
