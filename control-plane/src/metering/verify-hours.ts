import { joinSql, sql, type Sql } from "../platform/sql.ts";
import { hourCosts, pieceTables, ratedTable } from "../rating/rated-hours.ts";
import { greatestFigures, nameColumns, ranFromOf, summedFigures } from "./evidence.ts";
import { ratedFigures } from "./roll-up-hours.ts";
import { differences, hasNoMark, type TimeRange } from "./verify-differences.ts";

const measured = [...summedFigures, ...greatestFigures] as const;

/** Days of which every sample is still in its partition or among the late ones. */
const isUnarchivedDay = (hour: Sql) =>
  sql`NOT EXISTS (SELECT FROM usage_days gone WHERE gone.day = (${hour} AT TIME ZONE 'UTC')::date AND gone.archived_at IS NOT NULL)`;
/** Days of which the hours are there. */
const hasItsHours = (hour: Sql) =>
  sql`NOT EXISTS (SELECT FROM usage_days gone WHERE gone.day = (${hour} AT TIME ZONE 'UTC')::date AND gone.hours_archived_at IS NOT NULL)`;

/** Every hour before the newest one was made, if anything existed in it. */
export function hoursMade({ from, to }: TimeRange): Sql {
  return sql`
    SELECT 'hours-made' AS "check", NULL::uuid AS "podId", hour::text AS period, 'hours' AS figure, '1' AS expected, '0' AS found
    FROM generate_series(${from}, ${to} - interval '1 hour', '1 hour') AS hour
    WHERE hour < (SELECT max(hour_start) FROM usage_hours) AND NOT EXISTS (SELECT FROM usage_hours u WHERE u.hour_start = hour)
      AND EXISTS (SELECT FROM cloud_pod_allocations a WHERE a.valid && tstzrange(hour, hour + interval '1 hour')) AND ${hasNoMark(sql`hour`)}`;
}

/**
 * Every stored sample counts in exactly one hour, and the time that a pod ran is the union of its samples. For days
 * whose samples are not archived yet.
 */
export function samplesAgainstHours({ from, to }: TimeRange): Sql {
  const figures = sql`sample_count, running_ms, cpu_usage_us, running_ms::bigint * greatest(1, cores) AS cpu_capacity_ms, memory_byte_ms, disk_byte_ms,
    guest_in_bytes, guest_out_bytes, io_read_bytes, io_write_bytes, ${nameColumns(greatestFigures)}`;
  const row = sql`s.pod_id, s.sample_time, ${ranFromOf("s")} AS ran_from, date_bin('1 hour', s.sample_time - interval '1 millisecond', '2000-01-01Z') AS own_hour, ${figures}`;
  // A sample is a day long at most.
  const inReach = sql`s.sample_time > ${from} AND s.sample_time <= ${to} + interval '1 day' AND s.start_time < ${to}`;
  const isLookedAt = (hour: Sql) =>
    sql`${hasNoMark(hour)} AND ${isUnarchivedDay(hour)} AND EXISTS (SELECT FROM usage_hours u WHERE u.hour_start = ${hour})`;
  return sql`
    WITH single AS MATERIALIZED (
      SELECT ${row} FROM cloud_pod_usage_samples s WHERE ${inReach}
      UNION ALL SELECT ${row} FROM cloud_pod_usage_late_samples s WHERE ${inReach}),
    summed AS (
      SELECT pod_id, own_hour AS hour_start, ${nameColumns(summedFigures, (name) => `sum(${name}) AS ${name}`)}, ${nameColumns(greatestFigures, (name) => `max(${name}) AS ${name}`)}
      FROM single WHERE own_hour < ${to} GROUP BY pod_id, own_hour),
    reaching AS (
      SELECT pod_id, own_hour AS hour_start, ran_from, sample_time FROM single WHERE own_hour < ${to}
      UNION ALL SELECT pod_id, hour, ran_from, sample_time FROM single
        CROSS JOIN LATERAL generate_series(greatest(${from}, date_bin('1 hour', ran_from, '2000-01-01Z')), least(own_hour, ${to}) - interval '1 hour', '1 hour') AS hour
        WHERE ran_from < own_hour),
    covered AS (
      SELECT pod_id, hour_start, length_ms(range_agg(int4range(ms_in_hour(ran_from, hour_start), ms_in_hour(sample_time, hour_start)))) AS uptime_ms
      FROM reaching GROUP BY pod_id, hour_start),
    told AS (SELECT * FROM summed FULL JOIN covered USING (pod_id, hour_start))
    ${differences("samples-hours", [...measured, "uptime_ms"], {
      from: sql`(SELECT * FROM told WHERE ${isLookedAt(sql`told.hour_start`)}) AS expected
        FULL JOIN (SELECT * FROM cloud_pod_usage_hourly h WHERE h.hour_start >= ${from} AND h.hour_start < ${to} AND ${isLookedAt(sql`h.hour_start`)}) AS found
        USING (pod_id, hour_start)`,
      podId: sql`pod_id`,
      period: sql`hour_start`,
    })}`;
}

/** A number that stands for what row `base` says was measured; ten million rows of a day differ from each other. */
export function digestOf(base: string): Sql {
  return sql`hashtextextended(concat_ws('|', ${nameColumns([...measured, "covered"], (name) => `${base}.${name}`)}), 0)`;
}

/** What row `h` of an hour was when its samples were archived, as `base`. */
export const archivedBase: Sql = sql`jsonb_populate_record(h, coalesce(h.sealed_base, '{}'))`;

/** An archived hour is what was archived, which its digest shows to be untouched, and what came late since. */
export function archiveAgainstHours({ from, to }: TimeRange): Sql {
  const isOwn = sql`l.sample_time > h.hour_start AND l.sample_time <= h.hour_start + interval '1 hour'`;
  const own = (aggregate: string, name: string) =>
    name === "cpu_capacity_ms"
      ? sql`sum(l.running_ms::bigint * greatest(1, l.cores)) FILTER (WHERE ${isOwn}) AS cpu_capacity_ms`
      : sql`${nameColumns([`${aggregate}(l.${name})`])} FILTER (WHERE ${isOwn}) AS ${nameColumns([name])}`;
  const late = joinSql(
    [...summedFigures.map((name) => own("sum", name)), ...greatestFigures.map((name) => own("max", name))],
    sql`, `,
  );
  return sql`
    WITH archived AS (
      SELECT h AS found, base, h.pod_id, h.hour_start, d.sealed_at
      FROM cloud_pod_usage_hourly h JOIN usage_days d ON d.day = (h.hour_start AT TIME ZONE 'UTC')::date CROSS JOIN LATERAL ${archivedBase} AS base
      WHERE h.hour_start >= ${from} AND h.hour_start < ${to} AND h.archive_digest IS NOT NULL AND NOT h.supplement AND ${hasNoMark(sql`h.hour_start`)}),
    merged AS (
      SELECT h.found, ${nameColumns(summedFigures, (name) => `(h.base).${name} + coalesce(x.${name}, 0) AS ${name}`)},
        ${nameColumns(greatestFigures, (name) => `greatest((h.base).${name}, x.${name}) AS ${name}`)},
        length_ms((h.base).covered + coalesce(x.covered, '{}')) AS uptime_ms
      FROM archived h CROSS JOIN LATERAL (
        SELECT ${late}, range_agg(int4range(ms_in_hour(least(${ranFromOf("l")}, h.hour_start + interval '1 hour'), h.hour_start), ms_in_hour(l.sample_time, h.hour_start))) AS covered
        FROM cloud_pod_usage_late_samples l
        WHERE l.pod_id = h.pod_id AND l.sample_time > h.hour_start AND l.sample_time <= h.hour_start + interval '25 hours'
          AND l.start_time < h.hour_start + interval '1 hour' AND l.received_at > h.sealed_at) AS x)
    SELECT 'archive-hours' AS "check", pod_id AS "podId", hour_start::text AS period, 'archive_digest' AS figure, (found).archive_digest::text AS expected, digest::text AS found
    FROM archived CROSS JOIN LATERAL (SELECT ${digestOf("(archived.base)")} AS digest) AS own WHERE digest <> (found).archive_digest
    -- The files hold all samples that were measured, but for those that came late before the day was sealed.
    UNION ALL SELECT 'archive-hours', pod_id, hour_start::text, 'archive_samples', expected::text, (found).archive_samples::text
    FROM archived CROSS JOIN LATERAL (
      SELECT (archived.base).sample_count - coalesce(sum(l.sample_count), 0) AS expected FROM cloud_pod_usage_late_samples l
      WHERE l.pod_id = archived.pod_id AND l.sample_time > archived.hour_start AND l.sample_time <= archived.hour_start + interval '1 hour'
        AND l.received_at <= archived.sealed_at) AS own
    WHERE expected <> (found).archive_samples
    UNION ALL ${differences("archive-hours", [...measured, "uptime_ms"], {
      from: sql`(SELECT * FROM merged) AS expected CROSS JOIN LATERAL (SELECT (expected.found).*) AS found`,
      podId: sql`found.pod_id`,
      period: sql`found.hour_start`,
    })}`;
}

/**
 * Every pod has its row for every hour in which it existed; the classes of time sum to its existence, and nobody ran
 * longer than an hour.
 */
export function existenceAgainstHours({ from, to }: TimeRange): Sql {
  const isLookedAt = (hour: Sql) => sql`${hasNoMark(hour)} AND ${hasItsHours(hour)}`;
  return sql`
    WITH lived AS (
      SELECT a.pod_id, u.hour_start, range_agg(int4range(ms_in_hour(lower(a.valid), u.hour_start), ms_in_hour(coalesce(upper(a.valid), 'infinity'), u.hour_start))) AS lived
      FROM usage_hours u JOIN cloud_pod_allocations a ON a.valid && tstzrange(u.hour_start, u.hour_start + interval '1 hour')
      WHERE u.hour_start >= ${from} AND u.hour_start < ${to} AND ${isLookedAt(sql`u.hour_start`)} GROUP BY 1, 2),
    made AS (
      SELECT h.* FROM cloud_pod_usage_hourly h
      WHERE h.hour_start >= ${from} AND h.hour_start < ${to} AND NOT h.supplement AND ${isLookedAt(sql`h.hour_start`)})
    SELECT 'existence-hours' AS "check", pod_id AS "podId", hour_start::text AS period, 'existence_ms' AS figure,
      length_ms(coalesce(lived, '{}'))::text AS expected, coalesce(not_running_ms + missing_ms + length_ms(covered * coalesce(lived, '{}')), 0)::text AS found
    FROM lived FULL JOIN made USING (pod_id, hour_start)
    WHERE uptime_ms > 3600000 OR uptime_ms <> measured_ms + late_ms OR uptime_ms <> length_ms(covered)
      OR length_ms(coalesce(lived, '{}')) <> coalesce(not_running_ms + missing_ms + length_ms(covered * coalesce(lived, '{}')), 0)`;
}

/** The costs are those that allocations and prices give for the figures of the hour. */
export function ratesAgainstHours({ from, to }: TimeRange): Sql {
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
