import type { Database, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { dayArchiveName, hourArchiveName, writeArchive } from "./archive-file.ts";
import { withOwnClient, type ArchiveOptions } from "./archive-samples.ts";
import { beginArchiving, holdTurn } from "./archive-turn.ts";
import { lockPeriod } from "./lock-period.ts";
import { rollUpLockedDay } from "./roll-up-days.ts";
import { rollUpLockedMonth, yearMonthOf } from "./roll-up-months.ts";
import { lockDayAndItsHours, takeInMarks } from "./seal-days.ts";

const dayMs = 86_400_000;
const hoursKeptMs = 30 * dayMs;
const daysKeptMs = 365 * dayMs;

/**
 * Whether a month was found to be right after it was closed, and after whatever came late was taken in. Time without
 * a price is told and stays: nobody can price it afterwards.
 */
export function isProvedSince(month: Sql, closedAt: Sql): Sql {
  return sql`EXISTS (
    SELECT FROM usage_verifications v WHERE v.year_month = ${month} AND v.disagreements_count = 0
      AND v.verified_at >= greatest(${closedAt}, (SELECT max(r.rolled_at) FROM cloud_pod_usage_monthly r WHERE r.year_month = ${month})))`;
}

/**
 * Archives and removes the hours of months that were closed 30 days ago for everyone and found to be right since, a
 * day at a time: what waits is taken in first, then the day's own figures stand for its hours.
 * @returns the days.
 * @throws ArchiveTurnLost
 */
export async function archiveHours(db: Database, options: ArchiveOptions, now: Date): Promise<string[]> {
  const turn = await beginArchiving(db);
  const days = await db.query<{ starts: Date }>(sql`
    SELECT day::timestamp AT TIME ZONE 'UTC' AS starts FROM (
      -- Day by day from the index: the table has a year of every pod.
      SELECT at::date AS day FROM generate_series(
        (SELECT min(date)::timestamp FROM cloud_pod_usage_daily), (SELECT max(date)::timestamp FROM cloud_pod_usage_daily), '1 day') AS at
      WHERE EXISTS (SELECT FROM cloud_pod_usage_daily u WHERE u.date = at::date)) AS made
    WHERE NOT EXISTS (SELECT FROM usage_days d WHERE d.day = made.day AND (d.hours_archived_at IS NOT NULL OR d.dropped_at IS NULL))
      AND NOT EXISTS (
        SELECT FROM cloud_pod_usage_monthly m WHERE m.year_month = to_char(made.day, 'YYYY-MM')
          AND (m.closed_at IS NULL OR m.closed_at > ${new Date(now.getTime() - hoursKeptMs)}))
      AND ${isProvedSince(
        sql`to_char(made.day, 'YYYY-MM')`,
        sql`(SELECT max(c.closed_at) FROM usage_closed_months c WHERE c.year_month = to_char(made.day, 'YYYY-MM'))`,
      )}
    ORDER BY day`);
  const archived: string[] = [];
  for (const { starts } of days) {
    const day = starts.toISOString().slice(0, 10);
    if (await archiveHoursOf(db, options, { turn, starts, day }, now)) archived.push(day);
  }
  return archived;
}

async function archiveHoursOf(
  db: Database,
  options: ArchiveOptions,
  { turn, starts, day }: { readonly turn: bigint; readonly starts: Date; readonly day: string },
  now: Date,
): Promise<boolean> {
  const ends = new Date(starts.getTime() + dayMs);
  const settledAt = await db.transaction(async (tx) => {
    await holdTurn(tx, turn);
    await tx.query(sql`SELECT set_config('statement_timeout', '10min', true)`);
    await lockDayAndItsHours(tx, starts);
    await lockPeriod(tx, "day", starts);
    await takeInMarks(tx, starts, now);
    await rollUpLockedDay(tx, starts);
    // Seen by the other connection once it is committed; until then the day is locked against changes.
    return await databaseClock(tx);
  });
  const file = await withOwnClient(options.databaseUrl, (client) =>
    writeArchive(
      client,
      options.archiveDirectory,
      hourArchiveName(day),
      `SELECT * FROM cloud_pod_usage_hourly WHERE hour_start >= '${starts.toISOString()}' AND hour_start < '${ends.toISOString()}' ORDER BY hour_start, pod_id`,
      () => holdTurn(db, turn),
    ),
  );
  return await db.transaction(async (tx) => {
    await holdTurn(tx, turn);
    await tx.query(sql`SELECT set_config('statement_timeout', '10min', true)`);
    await lockDayAndItsHours(tx, starts);
    await lockPeriod(tx, "day", starts);
    const changed = await tx.query(sql`
      SELECT FROM usage_dirty_hours WHERE hour_start >= ${starts} AND hour_start < ${ends}
      UNION ALL SELECT FROM usage_dirty_days WHERE date = ${day}
      UNION ALL SELECT FROM cloud_pod_usage_hourly WHERE hour_start >= ${starts} AND hour_start < ${ends} AND rolled_at > ${settledAt} LIMIT 1`);
    // Something came between the file and the lock: the next pass writes the day again.
    if (changed.length > 0) return false;
    await tx.execute(sql`
      INSERT INTO usage_days (day, sealed_at, archived_at, dropped_at, hours_archived_at, hours_archive_sha256)
      VALUES (${day}, clock_timestamp(), now(), now(), clock_timestamp(), ${file.sha256})
      ON CONFLICT (day) DO UPDATE SET hours_archived_at = EXCLUDED.hours_archived_at, hours_archive_sha256 = EXCLUDED.hours_archive_sha256`);
    await tx.execute(sql`DELETE FROM cloud_pod_usage_hourly WHERE hour_start >= ${starts} AND hour_start < ${ends}`);
    return true;
  });
}

/**
 * Archives and removes the days of months that are over for a year; the month's own figures stand for them.
 * Late samples of such months go too.
 * @returns the months.
 * @throws ArchiveTurnLost
 */
export async function archiveDays(db: Database, options: ArchiveOptions, now: Date): Promise<string[]> {
  const turn = await beginArchiving(db);
  const months = await db.query<{ starts: Date }>(sql`
    SELECT DISTINCT date_trunc('month', d.date::timestamp) AT TIME ZONE 'UTC' AS starts FROM cloud_pod_usage_daily d
    WHERE d.date < (date_trunc('month', ${new Date(now.getTime() - daysKeptMs)}::timestamptz, 'UTC') AT TIME ZONE 'UTC')::date
      AND NOT EXISTS (SELECT FROM usage_months m WHERE m.year_month = to_char(d.date, 'YYYY-MM'))
      AND EXISTS (SELECT FROM usage_days u WHERE u.day = d.date AND u.hours_archived_at IS NOT NULL) ORDER BY 1`);
  const archived: string[] = [];
  for (const { starts } of months)
    if (await archiveDaysOf(db, options, { turn, starts }, now)) archived.push(yearMonthOf(starts));
  return archived;
}

async function archiveDaysOf(
  db: Database,
  options: ArchiveOptions,
  { turn, starts }: { readonly turn: bigint; readonly starts: Date },
  now: Date,
): Promise<boolean> {
  const yearMonth = yearMonthOf(starts);
  const ends = new Date(Date.UTC(starts.getUTCFullYear(), starts.getUTCMonth() + 1));
  const [from, to] = [starts, ends].map((at) => at.toISOString().slice(0, 10));
  const lockAll = async (tx: Transaction): Promise<void> => {
    await holdTurn(tx, turn);
    await tx.query(sql`SELECT set_config('statement_timeout', '10min', true)`);
    for (let at = starts.getTime(); at < ends.getTime(); at += dayMs) {
      await lockDayAndItsHours(tx, new Date(at));
      await lockPeriod(tx, "day", new Date(at));
    }
    await lockPeriod(tx, "month", starts);
  };
  const settledAt = await db.transaction(async (tx) => {
    await lockAll(tx);
    for (let at = starts.getTime(); at < ends.getTime(); at += dayMs) {
      await takeInMarks(tx, new Date(at), now);
      await rollUpLockedDay(tx, new Date(at));
    }
    await rollUpLockedMonth(tx, yearMonth, now);
    return await databaseClock(tx);
  });
  const file = await withOwnClient(options.databaseUrl, (client) =>
    writeArchive(
      client,
      options.archiveDirectory,
      dayArchiveName(yearMonth),
      `SELECT * FROM cloud_pod_usage_daily WHERE date >= '${from}' AND date < '${to}' ORDER BY date, pod_id`,
      () => holdTurn(db, turn),
    ),
  );
  return await db.transaction(async (tx) => {
    await lockAll(tx);
    const changed = await tx.query(sql`
      SELECT FROM usage_dirty_hours WHERE hour_start >= ${starts} AND hour_start < ${ends}
      UNION ALL SELECT FROM usage_dirty_days WHERE date >= ${from} AND date < ${to}
      UNION ALL SELECT FROM cloud_pod_usage_daily WHERE date >= ${from} AND date < ${to} AND rolled_at > ${settledAt} LIMIT 1`);
    // Something came between the file and the lock: the next pass writes the month again.
    if (changed.length > 0) return false;
    const open = await tx.query(sql`
      SELECT FROM cloud_pod_usage_daily d LEFT JOIN usage_days u ON u.day = d.date
      WHERE d.date >= ${from} AND d.date < ${to} AND u.hours_archived_at IS NULL LIMIT 1`);
    if (open.length > 0) return false;
    await tx.execute(
      sql`INSERT INTO usage_months (year_month, days_archived_at, days_archive_sha256) VALUES (${yearMonth}, clock_timestamp(), ${file.sha256})`,
    );
    await tx.execute(sql`DELETE FROM cloud_pod_usage_daily WHERE date >= ${from} AND date < ${to}`);
    await tx.execute(sql`DELETE FROM cloud_pod_usage_hourly WHERE hour_start >= ${starts} AND hour_start < ${ends}`);
    await tx.execute(
      sql`DELETE FROM cloud_pod_usage_late_samples WHERE sample_time > ${starts} AND sample_time <= ${ends}`,
    );
    return true;
  });
}

async function databaseClock(tx: Transaction): Promise<Date> {
  const [row] = await tx.query<{ at: Date }>(sql`SELECT clock_timestamp() AS at`);
  if (row === undefined) throw new Error("a query without a table has a row");
  return row.at;
}
