import type { Database, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { overageTables } from "../rating/overage.ts";
import { greatestFigures, nameColumns } from "./evidence.ts";
import { lockPeriod } from "./lock-period.ts";
import { addedFigures, emptyBase, isMarked } from "./roll-up-days.ts";

const carried = [...addedFigures, ...greatestFigures] as const;
const written = [...carried, "days", "overage_bytes", "cost_overage", "currency", "rolled_at"] as const;

/** A month as it is written: "2026-01". */
export function yearMonthOf(at: Date): string {
  return at.toISOString().slice(0, 7);
}

/**
 * Makes a month (UTC) again from its days, for the pods that its marks name. What differs from the bill of a
 * closed month becomes an adjustment in the same transaction; the billed figures stay.
 * @returns number of pods.
 */
export async function rollUpMonth(db: Database, monthStart: Date, now: Date): Promise<number> {
  return await db.transaction(async (tx) => {
    await lockPeriod(tx, "month", monthStart);
    await tx.query(
      sql`SELECT set_config('statement_timeout', '10min', true), set_config('work_mem', '256MB', true), set_config('jit', 'off', true)`,
    );
    const pods = await rollUpLockedMonth(tx, yearMonthOf(monthStart), now);
    return pods;
  });
}

/** As `rollUpMonth`, in the transaction of somebody who has locked the month. */
export async function rollUpLockedMonth(tx: Transaction, yearMonth: string, now: Date): Promise<number> {
  const [state] = await tx.query<{ hoursArchived: boolean; daysArchived: boolean }>(sql`
    SELECT EXISTS (SELECT FROM usage_days WHERE to_char(day, 'YYYY-MM') = ${yearMonth} AND hours_archived_at IS NOT NULL) AS "hoursArchived",
      EXISTS (SELECT FROM usage_months WHERE year_month = ${yearMonth}) AS "daysArchived"`);
  const [done] = await tx.query<{ pods: bigint }>(
    monthStatement(yearMonth, state?.hoursArchived === true, state?.daysArchived === true),
  );
  const pods = Number(done?.pods ?? 0);
  if (pods > 0) await adjustClosedRows(tx, yearMonth, now);
  return pods;
}

function monthStatement(yearMonth: string, hoursArchived: boolean, daysArchived: boolean): Sql {
  const from = sql`(${`${yearMonth}-01`}::date)`;
  const base = sql`
    UNION ALL SELECT m.pod_id, m.tenant_id, ${nameColumns(carried, (name) => `base.${name}`)}, base.days, m.currency
    FROM cloud_pod_usage_monthly m CROSS JOIN LATERAL jsonb_populate_record(m, coalesce(m.sealed_base, '{}')) AS base
    WHERE m.year_month = ${yearMonth} AND ${isMarked(sql`m.pod_id`)}`;
  // The allowance is used up hour by hour: without the hours what was found then stays.
  const overage = hoursArchived
    ? sql`kept AS (SELECT pod_id, overage_bytes, cost_overage FROM cloud_pod_usage_monthly WHERE year_month = ${yearMonth})`
    : sql`counted_hours AS (
        SELECT h.pod_id, h.tenant_id, h.hour_start, h.plan_out_bytes, h.allowance_gb FROM cloud_pod_usage_hourly h
        WHERE h.hour_start >= ${from}::timestamp AT TIME ZONE 'UTC' AND h.hour_start < (${from} + interval '1 month') AT TIME ZONE 'UTC'
          AND h.pod_id IN (SELECT pod_id FROM made WHERE plan_out_bytes > 0)),
      ${overageTables}, kept AS (SELECT * FROM overages)`;
  return sql`
    WITH marks AS (DELETE FROM usage_dirty_months WHERE year_month = ${yearMonth} RETURNING pod_ids),
    sources AS (
      SELECT d.pod_id, d.tenant_id, ${nameColumns(carried, (name) => `d.${name}`)}, 1 AS days, d.currency
      FROM cloud_pod_usage_daily d
      WHERE d.date >= ${from} AND d.date < ${from} + interval '1 month' AND ${isMarked(sql`d.pod_id`)}
      ${daysArchived ? base : sql``}),
    made AS MATERIALIZED (
      SELECT pod_id, min(tenant_id::text)::uuid AS tenant_id, ${nameColumns(addedFigures, (name) => `sum(${name}) AS ${name}`)},
        ${nameColumns(greatestFigures, (name) => `max(${name}) AS ${name}`)}, sum(days) AS days, max(currency) AS currency
      FROM sources GROUP BY pod_id),
    ${overage},
    written AS (
      INSERT INTO cloud_pod_usage_monthly (year_month, pod_id, tenant_id, sealed_base, ${nameColumns(written)},
        closed_at, billed_cost, billed_uptime_ms, billed_out_bytes)
      SELECT ${yearMonth}, made.pod_id, made.tenant_id, ${daysArchived ? emptyBase([...carried, "days"]) : sql`NULL`}::jsonb, ${nameColumns(carried, (name) => `made.${name}`)}, made.days,
        coalesce(k.overage_bytes, 0), coalesce(k.cost_overage, 0), made.currency, clock_timestamp(),
        -- A pod that is heard of after its tenant's month was closed was billed nothing.
        closed.closed_at, CASE WHEN closed.closed_at IS NOT NULL THEN 0 END, CASE WHEN closed.closed_at IS NOT NULL THEN 0 END,
        CASE WHEN closed.closed_at IS NOT NULL THEN 0 END
      FROM made LEFT JOIN kept k USING (pod_id)
      LEFT JOIN usage_closed_months closed ON closed.tenant_id = made.tenant_id AND closed.year_month = ${yearMonth}
      ON CONFLICT (year_month, pod_id) DO UPDATE SET ${nameColumns(written, (name) => `${name} = EXCLUDED.${name}`)}
        ${daysArchived ? keepBase : sql``}
      RETURNING pod_id)
    SELECT count(*) AS pods FROM written`;
}

const keepBase = sql`, sealed_base = coalesce(cloud_pod_usage_monthly.sealed_base, jsonb_build_object(${nameColumns(
  [...carried, "days"],
  (name) => `'${name}', to_jsonb(cloud_pod_usage_monthly.${name})`,
)}))`;

/** What a closed month now comes to, less what was billed and adjusted before, is one more adjustment. */
async function adjustClosedRows(tx: Transaction, yearMonth: string, now: Date): Promise<void> {
  await tx.execute(sql`
    WITH corrected AS (
      SELECT year_month, pod_id, tenant_id, currency, cost_total - billed_cost - adjusted_cost AS amount
      FROM cloud_pod_usage_monthly WHERE year_month = ${yearMonth} AND closed_at IS NOT NULL AND cost_total - billed_cost <> adjusted_cost),
    noted AS (
      UPDATE cloud_pod_usage_monthly m SET adjusted_cost = m.adjusted_cost + c.amount
      FROM corrected c WHERE m.year_month = c.year_month AND m.pod_id = c.pod_id)
    INSERT INTO usage_adjustments (id, tenant_id, pod_id, year_month, amount, currency, created_at)
    SELECT gen_random_uuid(), tenant_id, pod_id, year_month, amount, currency, ${now} FROM corrected`);
}
