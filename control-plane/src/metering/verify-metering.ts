import type { Database, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { overageTables } from "../rating/overage.ts";
import { hourCosts, pieceTables, ratedTable } from "../rating/rated-hours.ts";
import { greatestFigures, nameColumns, summedFigures } from "./evidence.ts";
import { addedFigures } from "./roll-up-days.ts";
import { ratedFigures } from "./roll-up-hours.ts";

/** A row that does not agree with what it is made of. */
export interface MeteringFinding {
  readonly check:
    | "samples-hours"
    | "archive-hours"
    | "existence-hours"
    | "rates-hours"
    | "hours-days"
    | "days-months"
    | "overage-months"
    | "bills"
    | "unpriced";
  readonly podId: string | null;
  /** An hour, a day or a month. */
  readonly period: string;
  readonly figure: string;
  readonly expected: string;
  readonly found: string;
}

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
 * left out of those checks that it concerns. Levels that are archived are not looked into.
 */
export async function verifyMetering(db: Database, month: string): Promise<MeteringVerdict> {
  return await db.transaction(async (tx) => {
    await tx.query(sql`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY`);
    await tx.query(sql`SELECT set_config('statement_timeout', '30min', true), set_config('work_mem', '256MB', true)`);
    const range = monthRange(month);
    const findings: MeteringFinding[] = [];
    const look = async (statement: Sql) => {
      findings.push(...(await tx.query<MeteringFinding>(sql`${statement} LIMIT ${findingsMax}`)));
    };
    // A day at a time, because these look at every hour of every pod.
    for (const day of daysOf(month))
      for (const check of [samplesAgainstHours, archiveAgainstHours, existenceAgainstHours, ratesAgainstHours])
        await look(check(day));
    for (const check of [hoursAgainstDays, daysAgainstMonths, overageOfMonths, billsOfMonths, unpricedTime])
      await look(check(range));
    return { month, findings, checked: await countRows(tx, range) };
  });
}

interface TimeRange {
  readonly from: Sql;
  readonly to: Sql;
}

interface MonthRange extends TimeRange {
  readonly month: string;
}

function monthRange(month: string): MonthRange {
  const [first, next] = [monthStart(month, 0), monthStart(month, 1)];
  return { month, from: sql`${first}::timestamptz`, to: sql`${next}::timestamptz` };
}

function monthStart(month: string, later: number): Date {
  const start = new Date(`${month}-01T00:00:00Z`);
  return new Date(Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + later));
}

function daysOf(month: string): TimeRange[] {
  const days: TimeRange[] = [];
  for (let at = monthStart(month, 0).getTime(); at < monthStart(month, 1).getTime(); at += dayMs)
    days.push({ from: sql`${new Date(at)}::timestamptz`, to: sql`${new Date(at + dayMs)}::timestamptz` });
  return days;
}

async function countRows(tx: Transaction, { month, from, to }: MonthRange): Promise<MeteringVerdict["checked"]> {
  const [row] = await tx.query<Record<"hours" | "days" | "months", bigint>>(sql`
    SELECT (SELECT count(*) FROM cloud_pod_usage_hourly WHERE hour_start >= ${from} AND hour_start < ${to}) AS hours,
      (SELECT count(*) FROM cloud_pod_usage_daily WHERE to_char(date, 'YYYY-MM') = ${month}) AS days,
      (SELECT count(*) FROM cloud_pod_usage_monthly WHERE year_month = ${month}) AS months`);
  return { hours: Number(row?.hours ?? 0), days: Number(row?.days ?? 0), months: Number(row?.months ?? 0) };
}

/** Compares named figures of two rows and gives a finding for each that differs. */
function differences(check: string, names: readonly string[], rows: { from: Sql; period: Sql; podId: Sql }): Sql {
  const pairs = nameColumns(
    names,
    (name) => `('${name}', coalesce(expected.${name}, 0)::numeric, coalesce(found.${name}, 0)::numeric)`,
  );
  return sql`
    SELECT ${check}::text AS "check", ${rows.podId} AS "podId", (${rows.period})::text AS period, figure.name AS figure,
      figure.wanted::text AS expected, figure.got::text AS found
    FROM ${rows.from} CROSS JOIN LATERAL (VALUES ${pairs}) AS figure (name, wanted, got)
    WHERE figure.wanted <> figure.got`;
}

const hasNoMark = (hour: Sql) => sql`NOT EXISTS (SELECT FROM usage_dirty_hours mark WHERE mark.hour_start = ${hour})`;
const isOpenDay = (hour: Sql) =>
  sql`NOT EXISTS (SELECT FROM usage_days sealed WHERE sealed.day = (${hour} AT TIME ZONE 'UTC')::date AND sealed.sealed_at IS NOT NULL)`;

/** Every stored sample of an open day counts in exactly one hour. */
function samplesAgainstHours({ from, to }: TimeRange): Sql {
  const names = [...summedFigures, ...greatestFigures];
  const own = sql`pod_id, date_bin('1 hour', sample_time - interval '1 millisecond', '2000-01-01Z') AS hour_start, sample_count, running_ms, cpu_usage_us,
    running_ms::bigint * cores AS cpu_capacity_ms, memory_byte_ms, disk_byte_ms, guest_in_bytes, guest_out_bytes, io_read_bytes, io_write_bytes,
    ${nameColumns(greatestFigures)}`;
  return sql`
    WITH single AS (
      SELECT ${own} FROM cloud_pod_usage_samples WHERE sample_time > ${from} AND sample_time <= ${to}
      UNION ALL SELECT ${own} FROM cloud_pod_usage_late_samples WHERE sample_time > ${from} AND sample_time <= ${to}),
    summed AS (
      SELECT pod_id, hour_start, ${nameColumns(summedFigures, (name) => `sum(${name}) AS ${name}`)}, ${nameColumns(greatestFigures, (name) => `max(${name}) AS ${name}`)}
      FROM single GROUP BY pod_id, hour_start)
    ${differences("samples-hours", names, {
      from: sql`(SELECT * FROM summed WHERE ${hasNoMark(sql`summed.hour_start`)} AND ${isOpenDay(sql`summed.hour_start`)} AND EXISTS (SELECT FROM usage_hours u WHERE u.hour_start = summed.hour_start)) AS expected
        FULL JOIN (SELECT * FROM cloud_pod_usage_hourly h WHERE h.hour_start >= ${from} AND h.hour_start < ${to} AND ${hasNoMark(sql`h.hour_start`)} AND ${isOpenDay(sql`h.hour_start`)}) AS found
        USING (pod_id, hour_start)`,
      podId: sql`pod_id`,
      period: sql`hour_start`,
    })}`;
}

/** A sealed hour is what was archived and what came late since. */
function archiveAgainstHours({ from, to }: TimeRange): Sql {
  return differences("archive-hours", ["sample_count"], {
    from: sql`(SELECT h.* FROM cloud_pod_usage_hourly h JOIN usage_days d ON d.day = (h.hour_start AT TIME ZONE 'UTC')::date
        WHERE h.hour_start >= ${from} AND h.hour_start < ${to} AND d.archived_at IS NOT NULL AND NOT h.supplement AND h.archive_samples IS NOT NULL AND ${hasNoMark(sql`h.hour_start`)}) AS found
      CROSS JOIN LATERAL (
        SELECT found.archive_samples + coalesce(sum(l.sample_count), 0) AS sample_count FROM cloud_pod_usage_late_samples l
        WHERE l.pod_id = found.pod_id AND l.sample_time > found.hour_start AND l.sample_time <= found.hour_start + interval '1 hour') AS expected`,
    podId: sql`found.pod_id`,
    period: sql`found.hour_start`,
  });
}

/** The four classes of time sum to the pod's existence, and nobody ran longer than he existed or than an hour. */
function existenceAgainstHours({ from, to }: TimeRange): Sql {
  return sql`
    WITH lived AS (
      SELECT h.pod_id, h.hour_start, sum(ms_in_hour(coalesce(upper(a.valid), 'infinity'), h.hour_start) - ms_in_hour(lower(a.valid), h.hour_start)) AS existed_ms
      FROM cloud_pod_usage_hourly h JOIN cloud_pod_allocations a ON a.pod_id = h.pod_id AND a.valid && tstzrange(h.hour_start, h.hour_start + interval '1 hour')
      WHERE h.hour_start >= ${from} AND h.hour_start < ${to} AND NOT h.supplement AND ${hasNoMark(sql`h.hour_start`)} GROUP BY 1, 2)
    SELECT 'existence-hours' AS "check", pod_id AS "podId", hour_start::text AS period, 'existence_ms' AS figure, l.existed_ms::text AS expected,
      (not_running_ms + missing_ms + length_ms(covered * range_of.lived))::text AS found
    FROM lived l JOIN cloud_pod_usage_hourly h USING (pod_id, hour_start) CROSS JOIN LATERAL (
      SELECT range_agg(int4range(ms_in_hour(lower(a.valid), h.hour_start), ms_in_hour(coalesce(upper(a.valid), 'infinity'), h.hour_start))) AS lived
      FROM cloud_pod_allocations a WHERE a.pod_id = h.pod_id AND a.valid && tstzrange(h.hour_start, h.hour_start + interval '1 hour')) AS range_of
    WHERE h.uptime_ms > 3600000 OR h.uptime_ms <> h.measured_ms + h.late_ms OR h.uptime_ms <> length_ms(h.covered)
      OR l.existed_ms <> not_running_ms + missing_ms + length_ms(covered * range_of.lived)`;
}

/** The costs are those that allocations and prices give for the figures of the hour. */
function ratesAgainstHours({ from, to }: TimeRange): Sql {
  return sql`
    WITH due AS MATERIALIZED (
      SELECT pod_id, tenant_id, hour_start, hour_start + interval '1 hour' AS hour_end, supplement, covered, guest_in_bytes, guest_out_bytes, traffic_points
      FROM cloud_pod_usage_hourly h WHERE hour_start >= ${from} AND hour_start < ${to} AND ${hasNoMark(sql`h.hour_start`)}),
    ${pieceTables}, evidence AS (SELECT * FROM due), ${ratedTable}
    ${differences("rates-hours", [...ratedFigures, ...hourCosts], {
      from: sql`(SELECT h.* FROM cloud_pod_usage_hourly h JOIN due USING (pod_id, hour_start)) AS found LEFT JOIN rated AS expected USING (pod_id, hour_start)`,
      podId: sql`pod_id`,
      period: sql`hour_start`,
    })}`;
}

/** A day is the sum of its hours. */
function hoursAgainstDays({ month, from, to }: MonthRange): Sql {
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
function daysAgainstMonths({ month }: MonthRange): Sql {
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
function overageOfMonths({ month, from, to }: MonthRange): Sql {
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
function billsOfMonths({ month }: MonthRange): Sql {
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
function unpricedTime({ month }: MonthRange): Sql {
  return sql`
    SELECT 'unpriced' AS "check", pod_id AS "podId", year_month::text AS period, 'unpriced_ms' AS figure, '0' AS expected, unpriced_ms::text AS found
    FROM cloud_pod_usage_monthly WHERE year_month = ${month} AND unpriced_ms > 0`;
}
