import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { rollUpDay } from "./roll-up-days.ts";
import { rollUpHour } from "./roll-up-hours.ts";
import { rollUpMonth } from "./roll-up-months.ts";

const hourMs = 3_600_000;
/** An hour is made five minutes after its end, when the last batches of healthy hosts are there. */
const settleMs = 5 * 60_000;
/** Of one pass; a control plane that was away for long makes the oldest hours first and the rest in the next pass. */
const hoursMax = 100;

/** What a pass made. */
export interface RollUpReport {
  readonly hours: number;
  readonly days: number;
  readonly months: number;
}

/**
 * Makes whatever is due: hours that ended five minutes ago and were never made, hours with marks, then the
 * days and months above them. Safe to run at any moment, by several at once, and to be killed at any point:
 * every hour, day and month is a transaction of its own and leaves its mark for the level above in it.
 */
export async function rollUpDirty(db: Database, now: Date): Promise<RollUpReport> {
  await markFinalHours(db, now);
  const hours = await dueHours(db, now);
  for (const hour of hours) await rollUpHour(db, hour, now);
  const days = await db.query<{ date: Date }>(
    sql`SELECT DISTINCT date::timestamp AT TIME ZONE 'UTC' AS date FROM usage_dirty_days ORDER BY 1`,
  );
  for (const { date } of days) await rollUpDay(db, date);
  const months = await db.query<{ start: Date }>(
    sql`SELECT DISTINCT to_date(year_month, 'YYYY-MM')::timestamp AT TIME ZONE 'UTC' AS start FROM usage_dirty_months ORDER BY 1`,
  );
  for (const { start } of months) await rollUpMonth(db, start, now);
  return { hours: hours.length, days: days.length, months: months.length };
}

/** Ended hours with marks, and those that were never made since the first one, or since anything was ever billable. */
async function dueHours(db: Database, now: Date): Promise<Date[]> {
  const endedBefore = new Date(now.getTime() - hourMs);
  const settledBefore = new Date(now.getTime() - hourMs - settleMs);
  const rows = await db.query<{ hour: Date }>(sql`
    SELECT hour FROM (
      SELECT DISTINCT hour_start AS hour FROM usage_dirty_hours
      WHERE hour_start <= ${endedBefore} AND (hour_start <= ${settledBefore} OR EXISTS (SELECT FROM usage_hours h WHERE h.hour_start = usage_dirty_hours.hour_start))
      UNION
      SELECT hour FROM generate_series(
        coalesce((SELECT min(hour_start) FROM usage_hours),
          (SELECT date_bin('1 hour', min(lower(valid)), '2000-01-01Z') FROM cloud_pod_allocations), ${now}::timestamptz),
        ${settledBefore}::timestamptz, '1 hour') AS hour
      WHERE NOT EXISTS (SELECT FROM usage_hours made WHERE made.hour_start = hour)) AS due
    ORDER BY hour LIMIT ${hoursMax}`);
  return rows.map((row) => row.hour);
}

/**
 * Marks the pods of hours that were not final when they were made and are now: what the last reports say
 * about their absent minutes is taken in, and from then on what comes is late.
 */
async function markFinalHours(db: Database, now: Date): Promise<void> {
  await db.execute(sql`
    INSERT INTO usage_dirty_hours (hour_start, pod_id)
    SELECT h.hour_start, h.pod_id FROM cloud_pod_usage_hourly h
    WHERE h.final_at IS NULL AND NOT EXISTS (SELECT FROM usage_dirty_hours m WHERE m.hour_start = h.hour_start AND m.pod_id = h.pod_id)
      AND (h.hour_start + interval '73 hours' <= ${now}::timestamptz OR NOT EXISTS (
        SELECT FROM cloud_pod_placements p LEFT JOIN node_status n USING (node_id)
        WHERE p.pod_id = h.pod_id AND p.placed_from < h.hour_start + interval '1 hour' AND coalesce(p.placed_to, 'infinity') > h.hour_start
          AND n.state IS DISTINCT FROM 'lost' AND n.state IS DISTINCT FROM 'removed'
          AND NOT EXISTS (SELECT FROM node_spools s WHERE s.node_id = p.node_id AND s.complete_until >= least(h.hour_start + interval '1 hour', p.placed_to))))`);
}
