import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { lockPeriod } from "./lock-period.ts";
import { yearMonthOf } from "./roll-up-months.ts";

/** Longest wait for hosts that have not delivered; what is unknown then stays missing. */
const waitMs = 72 * 3_600_000;

/** A tenant's month that was closed. */
export interface ClosedMonth {
  readonly tenantId: string;
  readonly yearMonth: string;
}

/**
 * Closes the ended months of tenants whose hours are all made and final, at the latest three days after the
 * month: `billed_*` of their rows become what the figures are and never change again. Behind the lock of the
 * month, and not while something below waits to be taken in.
 */
export async function closeMonths(db: Database, now: Date): Promise<ClosedMonth[]> {
  const months = await db.query<{ starts: Date }>(sql`
    SELECT DISTINCT to_date(m.year_month, 'YYYY-MM')::timestamp AT TIME ZONE 'UTC' AS starts FROM cloud_pod_usage_monthly m
    WHERE m.closed_at IS NULL AND m.year_month < ${yearMonthOf(now)} ORDER BY 1`);
  const closed: ClosedMonth[] = [];
  for (const { starts } of months) closed.push(...(await closeMonth(db, starts, now)));
  return closed;
}

async function closeMonth(db: Database, starts: Date, now: Date): Promise<ClosedMonth[]> {
  const ends = new Date(Date.UTC(starts.getUTCFullYear(), starts.getUTCMonth() + 1));
  const yearMonth = yearMonthOf(starts);
  const waited = now.getTime() >= ends.getTime() + waitMs;
  return await db.transaction(async (tx) => {
    await lockPeriod(tx, "month", starts);
    return await tx.query<ClosedMonth>(sql`
      WITH unfinished AS (
        -- Hours of the month that nobody has made yet, and marks that wait.
        SELECT FROM usage_dirty_months WHERE year_month = ${yearMonth}
        UNION ALL SELECT FROM usage_dirty_days WHERE date >= (${starts}::timestamptz AT TIME ZONE 'UTC')::date AND date < (${ends}::timestamptz AT TIME ZONE 'UTC')::date
        -- After three days nothing in it is waited for: what a host replays then is an adjustment, for whomever it is.
        UNION ALL SELECT FROM usage_dirty_hours WHERE hour_start >= ${starts} AND hour_start < ${ends} AND NOT ${waited}
        UNION ALL SELECT WHERE coalesce((SELECT max(hour_start) FROM usage_hours), '-infinity') < ${ends}::timestamptz - interval '1 hour'),
      ready AS (
        SELECT DISTINCT tenant_id FROM cloud_pod_usage_monthly m
        WHERE m.year_month = ${yearMonth} AND m.closed_at IS NULL AND NOT EXISTS (SELECT FROM unfinished) AND (${waited} OR NOT EXISTS (
          SELECT FROM cloud_pod_usage_hourly h
          WHERE h.tenant_id = m.tenant_id AND h.hour_start >= ${starts} AND h.hour_start < ${ends} AND h.final_at IS NULL))),
      billed AS (
        UPDATE cloud_pod_usage_monthly m
        SET closed_at = ${now}, billed_cost = m.cost_total, billed_uptime_ms = m.uptime_ms, billed_out_bytes = m.guest_out_bytes
        FROM ready WHERE m.tenant_id = ready.tenant_id AND m.year_month = ${yearMonth} AND m.closed_at IS NULL
        RETURNING m.tenant_id, m.currency, m.billed_cost)
      INSERT INTO usage_closed_months (tenant_id, year_month, currency, billed_cost, closed_at)
      SELECT tenant_id, ${yearMonth}, max(currency), sum(billed_cost), ${now} FROM billed GROUP BY tenant_id
      ON CONFLICT (tenant_id, year_month) DO NOTHING
      RETURNING tenant_id AS "tenantId", year_month AS "yearMonth"`);
  });
}
