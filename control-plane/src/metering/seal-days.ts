import type { Database, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { lockPeriod } from "./lock-period.ts";
import { rollUpLockedHour } from "./roll-up-hours.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** Samples stay this long after their day, whoever is still silent. */
const rawRetentionMs = 72 * hourMs;

/**
 * Seals the days that ended three days ago: their hours take in what waits and are frozen, and from the
 * commit on ingest keeps what still comes for them as late samples. Nothing is dropped here.
 * @returns the days, as "2026-01-05".
 */
export async function sealDays(db: Database, now: Date): Promise<string[]> {
  const days = await db.query<{ starts: Date }>(sql`
    SELECT day::timestamp AT TIME ZONE 'UTC' AS starts FROM usage_days
    WHERE sealed_at IS NULL AND day::timestamp AT TIME ZONE 'UTC' <= ${new Date(now.getTime() - dayMs - rawRetentionMs)} ORDER BY day`);
  const sealed: string[] = [];
  for (const { starts } of days) {
    if (await db.transaction((tx) => sealDay(tx, starts, now))) sealed.push(starts.toISOString().slice(0, 10));
  }
  return sealed;
}

/** @returns false when somebody else has sealed it: what came since is late, and would be nothing with a later seal */
async function sealDay(tx: Transaction, starts: Date, now: Date): Promise<boolean> {
  await tx.query(sql`SELECT set_config('statement_timeout', '10min', true)`);
  await lockDayAndItsHours(tx, starts);
  const day = starts.toISOString().slice(0, 10);
  const open = await tx.query(sql`SELECT FROM usage_days WHERE day = ${day} AND sealed_at IS NULL`);
  if (open.length === 0) return false;
  await takeInMarks(tx, starts, now);
  // The clock and not the transaction's start: what ingest stored while this waited is in.
  await tx.execute(sql`UPDATE usage_days SET sealed_at = clock_timestamp() WHERE day = ${day}`);
  await tx.execute(sql`
    UPDATE cloud_pod_usage_hourly h SET sealed_at = d.sealed_at, final_at = coalesce(h.final_at, ${now}), timely = coalesce(h.timely, h.covered)
    FROM usage_days d WHERE d.day = ${day} AND h.hour_start >= ${starts} AND h.hour_start < ${new Date(starts.getTime() + dayMs)}`);
  return true;
}

/** Nobody makes hours of the day and nobody stores samples of it until the transaction ends. */
export async function lockDayAndItsHours(tx: Transaction, starts: Date): Promise<void> {
  for (const hour of hoursOf(starts)) await lockPeriod(tx, "hour", hour);
  await tx.query(
    sql`SELECT pg_advisory_xact_lock(hashtext('usage_days'), ${Math.floor(starts.getTime() / dayMs)}::integer)`,
  );
}

/** Makes the hours of a locked day that have marks, or were never made although usage had begun. */
export async function takeInMarks(tx: Transaction, starts: Date, now: Date): Promise<void> {
  const due = await tx.query<{ hour: Date }>(sql`
    SELECT hour FROM unnest(${hoursOf(starts)}::timestamptz[]) AS hour
    WHERE NOT EXISTS (SELECT FROM usage_hours h WHERE h.hour_start = hour) AND hour > (SELECT min(hour_start) FROM usage_hours) OR EXISTS (SELECT FROM usage_dirty_hours m WHERE m.hour_start = hour)
    ORDER BY hour`);
  for (const { hour } of due) await rollUpLockedHour(tx, hour, now);
}

function hoursOf(starts: Date): Date[] {
  return Array.from({ length: 24 }, (_, index) => new Date(starts.getTime() + index * hourMs));
}
