import type { Database, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { findDamagedFiles } from "./verify-files.ts";
import {
  hoursOfDay,
  preferHashingOfMany,
  rangeOf,
  type MeteringFinding,
  type MonthRange,
} from "./verify-differences.ts";
import {
  archiveAgainstHours,
  existenceAgainstHours,
  hoursMade,
  ratesAgainstHours,
  samplesAgainstHours,
} from "./verify-hours.ts";
import { billsOfMonths, daysAgainstMonths, hoursAgainstDays, overageOfMonths, unpricedTime } from "./verify-totals.ts";

/** What a month was found to be. */
export interface MeteringVerdict {
  readonly month: string;
  /** Empty: everything adds up. At most 1,000 of each check. */
  readonly findings: readonly MeteringFinding[];
  /** Rows that were looked at. */
  readonly checked: { readonly hours: number; readonly days: number; readonly months: number };
}

const findingsMax = 1_000;
const dayMs = 86_400_000;

/**
 * Proves that samples, hours, days, months and bills of a UTC month ("2026-01") agree, to the last byte and
 * the last fraction of a cent. One snapshot for all checks; what has a mark and waits to be made again is
 * left out of those checks that it concerns. Of archived levels the digests are compared.
 *
 * @param archives where the files are, and from when on they are read again: reading takes long
 */
export async function verifyMetering(
  db: Database,
  month: string,
  archives?: { readonly directory: string; readonly since: Date },
): Promise<MeteringVerdict> {
  const range = monthRange(month);
  const verdict = await db.transaction(async (tx) => {
    await tx.query(sql`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY`);
    await preferHashingOfMany(tx);
    const findings: MeteringFinding[] = [];
    const look = async (statement: Sql) => {
      findings.push(...(await tx.query<MeteringFinding>(sql`${statement} LIMIT ${findingsMax}`)));
    };
    await look(hoursMade(range));
    // A day at a time, because these look at every hour of every pod; samples are sixty times as many.
    for (const { starts, isArchived } of await daysWithUsage(tx, range)) {
      const day = rangeOf(starts, dayMs);
      for (const hour of isArchived ? [] : hoursOfDay(starts)) await look(samplesAgainstHours(hour));
      for (const check of [archiveAgainstHours, existenceAgainstHours, ratesAgainstHours]) await look(check(day));
    }
    for (const check of [hoursAgainstDays, daysAgainstMonths, overageOfMonths, billsOfMonths, unpricedTime])
      await look(check(range));
    return { month, findings, checked: await countRows(tx, range) };
  });
  if (archives === undefined) return verdict;
  // Not under the snapshot, which nothing may be vacuumed behind: reading takes long, and files do not change.
  const damaged = await findDamagedFiles(db, archives.directory, range, archives.since);
  return { ...verdict, findings: [...verdict.findings, ...damaged] };
}

function monthRange(month: string): MonthRange {
  const [first, next] = [monthStart(month, 0), monthStart(month, 1)];
  return { month, from: sql`${first}::timestamptz`, to: sql`${next}::timestamptz` };
}

function monthStart(month: string, later: number): Date {
  const start = new Date(`${month}-01T00:00:00Z`);
  return new Date(Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + later));
}

/** Days of which hours were made or samples are stored. */
async function daysWithUsage(
  tx: Transaction,
  { from, to }: MonthRange,
): Promise<{ starts: Date; isArchived: boolean }[]> {
  return await tx.query<{ starts: Date; isArchived: boolean }>(sql`
    SELECT day AS starts, EXISTS (
      SELECT FROM usage_days u WHERE u.day = (day AT TIME ZONE 'UTC')::date AND u.archived_at IS NOT NULL) AS "isArchived"
    FROM generate_series(${from}, ${to} - interval '1 day', '1 day') AS day
    WHERE EXISTS (SELECT FROM usage_hours u WHERE u.hour_start >= day AND u.hour_start < day + interval '1 day')
      OR EXISTS (SELECT FROM cloud_pod_usage_hourly h WHERE h.hour_start >= day AND h.hour_start < day + interval '1 day')
      OR EXISTS (SELECT FROM cloud_pod_usage_samples s WHERE s.sample_time > day AND s.sample_time <= day + interval '1 day') ORDER BY day`);
}

async function countRows(tx: Transaction, { month, from, to }: MonthRange): Promise<MeteringVerdict["checked"]> {
  const first = `${month}-01`;
  const [row] = await tx.query<Record<"hours" | "days" | "months", bigint>>(sql`
    SELECT (SELECT count(*) FROM cloud_pod_usage_hourly WHERE hour_start >= ${from} AND hour_start < ${to}) AS hours,
      (SELECT count(*) FROM cloud_pod_usage_daily WHERE date >= ${first}::date AND date < ${first}::date + interval '1 month') AS days,
      (SELECT count(*) FROM cloud_pod_usage_monthly WHERE year_month = ${month}) AS months`);
  return { hours: Number(row?.hours ?? 0), days: Number(row?.days ?? 0), months: Number(row?.months ?? 0) };
}
