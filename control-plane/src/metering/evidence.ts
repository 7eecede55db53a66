import { joinSql, sql, type Sql } from "../platform/sql.ts";

/** Figures of a pod-hour that are added when evidence is put together. */
export const summedFigures = [
  "sample_count",
  "running_ms",
  "cpu_usage_us",
  "cpu_capacity_ms",
  "memory_byte_ms",
  "disk_byte_ms",
  "guest_in_bytes",
  "guest_out_bytes",
  "io_read_bytes",
  "io_write_bytes",
] as const;

/** Figures of which the greatest counts. */
export const greatestFigures = ["cpu_max_basis_points", "memory_max_bytes", "disk_max_bytes"] as const;

/** The names of columns as SQL; names of this program, never text from outside. */
export function nameColumns(names: readonly string[], write: (name: string) => string = (name) => name): Sql {
  const text = names.map(write).join(", ");
  return sql(Object.assign([text], { raw: [text] }));
}

/** Where the samples of an hour are read: in one go, pod by pod, or from the row that was frozen when they were archived. */
export type EvidenceSource =
  | { readonly kind: "whole-hour"; readonly from: Date; readonly to: Date }
  | { readonly kind: "pod-by-pod" }
  | { readonly kind: "sealed"; readonly at: Date };

const maxSampleLength = sql`interval '1 day'`;

/** When the pod of sample row `alias` began to run: at its start, but for a difference that is more than a clock being set right. */
export function ranFromOf(alias: string): Sql {
  return nameColumns([
    `CASE WHEN date_part('epoch', ${alias}.sample_time - ${alias}.start_time) * 1000 - ${alias}.running_ms < 1000
      THEN ${alias}.start_time ELSE ${alias}.sample_time - make_interval(secs => ${alias}.running_ms / 1000.0) END`,
  ]);
}
const ranFrom = ranFromOf("s");

interface HourBounds {
  readonly from: Sql;
  readonly to: Sql;
}

/** The ms of an hour in which pods ran, by sample rows `s`. */
function coveredBySamples({ from, to }: HourBounds): Sql {
  return sql`range_agg(int4range(ms_in_hour(least(${ranFrom}, ${to}), ${from}), ms_in_hour(least(s.sample_time, ${to}), ${from})))`;
}

/** The histogram of sample rows `s`: their share of all cores (of one, where the host names none), weighed by their time in the hour. */
function histogramOfSamples({ from, to }: HourBounds): Sql {
  return sql`array_agg(${bucketOf("s")} * 4294967296
    + ms_in_hour(least(s.sample_time, ${to}), ${from}) - ms_in_hour(least(${ranFrom}, ${to}), ${from}))`;
}

/** The share of its cores that a sample row `alias` used, in percent, as the bucket of a histogram; NULL where nothing ran. */
function bucketOf(alias: string): Sql {
  return nameColumns([
    `least(100, ${alias}.cpu_usage_us / nullif(${alias}.running_ms::bigint * greatest(1, ${alias}.cores) * 10, 0))`,
  ]);
}

/** The entries of a histogram with one for each bucket, in order. As text of the query and not as a function of the database, which would be twice as slow. */
function histogramMerged(entries: Sql): Sql {
  return sql`(SELECT coalesce(array_agg(bucket * 4294967296 + ms ORDER BY bucket), '{}') FROM (
    SELECT entry >> 32 AS bucket, sum((entry & 4294967295)::integer) AS ms FROM (SELECT unnest(${entries}) AS entry) AS single GROUP BY 1) AS buckets WHERE bucket IS NOT NULL)`;
}

/** What the samples `g` of each pod come to, with an entry of the histogram for each. */
function sumUp(where: Sql): Sql {
  const sums = nameColumns(
    summedFigures.filter((name) => name !== "cpu_capacity_ms" && !name.endsWith("_byte_ms")),
    (name) => `sum(g.${name})::bigint AS ${name}`,
  );
  return sql`
    SELECT g.pod_id, ${sums}, sum(g.running_ms::bigint * greatest(1, g.cores))::bigint AS cpu_capacity_ms,
      sum(g.memory_byte_ms) AS memory_byte_ms, sum(g.disk_byte_ms) AS disk_byte_ms, ${nameColumns(greatestFigures, (name) => `max(g.${name}) AS ${name}`)},
      min(g.spool_no) = max(g.spool_no) AS is_one_spool, min(g.start_time) AS starts, max(g.sample_time) AS ends,
      sum(g.sample_time - g.start_time) AS length, array_agg(${bucketOf("g")} * 4294967296 + g.running_ms) AS entries
    FROM cloud_pod_usage_samples g WHERE ${where} GROUP BY g.pod_id`;
}

/**
 * Covered time and histogram of the sums `g` of a pod. Nearly always one spool measured a stretch without
 * gaps, which minima, maxima and sums prove; only else are the intervals united one by one.
 */
function timesOfSums(hour: HourBounds): Sql {
  const oneByOne = (what: Sql) => sql`(SELECT ${what} FROM cloud_pod_usage_samples s
    WHERE s.pod_id = g.pod_id AND s.sample_time > ${hour.from} AND s.sample_time <= ${hour.to})`;
  const gapless = sql`(g.is_one_spool AND g.from_ms >= 0 AND g.to_ms - g.from_ms = round(date_part('epoch', g.length) * 1000) AND g.to_ms - g.from_ms - g.running_ms < 1000)`;
  return sql`
    CASE WHEN ${gapless} THEN int4multirange(int4range(g.from_ms, g.to_ms)) ELSE ${oneByOne(coveredBySamples(hour))} END AS covered,
    CASE WHEN ${gapless} THEN ${histogramMerged(sql`g.entries`)} ELSE ${histogramMerged(oneByOne(histogramOfSamples(hour)))} END AS cpu_histogram`;
}

/** Adds where the sums begin and end, in ms of the hour; before it is below zero. */
function withBounds(summed: Sql, { from }: HourBounds): Sql {
  return sql`SELECT summed.*, ms_between(${from}, starts)::integer AS from_ms, ms_between(${from}, ends)::integer AS to_ms FROM (${summed}) AS summed OFFSET 0`;
}

/** `measured`: what the samples of each due hour come to, or what they came to when they were archived. */
function measuredTable(source: EvidenceSource): Sql {
  const figures = nameColumns([...summedFigures, ...greatestFigures], (name) => `g.${name}`);
  switch (source.kind) {
    case "whole-hour": {
      const hour = { from: sql`${source.from}::timestamptz`, to: sql`${source.to}::timestamptz` };
      const summed = sumUp(sql`g.sample_time > ${hour.from} AND g.sample_time <= ${hour.to}`);
      return sql`measured AS (
        SELECT g.pod_id, ${hour.from} AS hour_start, ${figures}, ${timesOfSums(hour)}, NULL::jsonb AS traffic_points
        FROM (${withBounds(summed, hour)}) AS g)`;
    }
    case "pod-by-pod": {
      const hour = { from: sql`d.hour_start`, to: sql`d.hour_end` };
      const summed = sumUp(sql`g.pod_id = d.pod_id AND g.sample_time > d.hour_start AND g.sample_time <= d.hour_end`);
      return sql`measured AS (
        SELECT d.pod_id, d.hour_start, ${figures}, ${timesOfSums(hour)}, NULL::jsonb AS traffic_points
        FROM due d CROSS JOIN LATERAL (${withBounds(summed, hour)}) AS g)`;
    }
    case "sealed":
      return sql`measured AS (
        SELECT h.pod_id, h.hour_start, ${nameColumns([...summedFigures, ...greatestFigures], (name) => `base.${name}`)},
          base.covered, base.cpu_histogram, base.traffic_points
        FROM due d JOIN cloud_pod_usage_hourly h USING (pod_id, hour_start)
        CROSS JOIN LATERAL jsonb_populate_record(h, coalesce(h.sealed_base, '{}')) AS base
        WHERE NOT h.supplement)`;
  }
}

/** Samples that are not among the usual ones: those that came late, and those that only began in the hour. */
function straysTable(source: EvidenceSource): Sql {
  const row = sql`d.pod_id, d.hour_start, d.hour_end, s.start_time, s.sample_time, s.running_ms, s.cores, s.sample_count, s.cpu_usage_us,
    s.running_ms::bigint * greatest(1, s.cores) AS cpu_capacity_ms, s.memory_byte_ms, s.disk_byte_ms, s.guest_in_bytes, s.guest_out_bytes,
    s.io_read_bytes, s.io_write_bytes, ${nameColumns(greatestFigures, (name) => `s.${name}`)}`;
  const late = sql`SELECT ${row}, s.sample_time <= d.hour_end AS is_own
    FROM due d JOIN cloud_pod_usage_late_samples s ON s.pod_id = d.pod_id
    WHERE s.sample_time > d.hour_start AND s.sample_time <= d.hour_end + ${maxSampleLength} AND s.start_time < d.hour_end`;
  // What reaches into a sealed day was stored as late, or was part of it when it was sealed, as was all that had come by then.
  if (source.kind === "sealed") return sql`strays AS (${late} AND s.received_at > ${source.at})`;
  const end = source.kind === "whole-hour" ? sql`${source.to}::timestamptz` : sql`d.hour_end`;
  return sql`strays AS (${late} UNION ALL
    SELECT ${row}, false FROM due d JOIN cloud_pod_usage_samples s ON s.pod_id = d.pod_id
    WHERE s.sample_time > ${end} AND s.sample_time <= ${end} + ${maxSampleLength} AND s.start_time < ${end})`;
}

/** `points`: traffic sample by sample, for hours inside which rates change. */
function pointsTable(source: EvidenceSource): Sql {
  const point = sql`d.pod_id, d.hour_start, ms_in_hour(s.sample_time, d.hour_start) AS at_ms, s.guest_in_bytes, s.guest_out_bytes`;
  const stored = sql`SELECT ${point} FROM edges JOIN due d USING (pod_id, hour_start) CROSS JOIN LATERAL (
      SELECT sample_time, guest_in_bytes, guest_out_bytes FROM cloud_pod_usage_samples s
      WHERE s.pod_id = d.pod_id AND s.sample_time > d.hour_start AND s.sample_time <= d.hour_end OFFSET 0) AS s UNION ALL`;
  return sql`points AS (
    SELECT pod_id, hour_start, jsonb_agg(jsonb_build_array(at_ms, guest_in_bytes, guest_out_bytes) ORDER BY at_ms) AS traffic_points
    FROM (${source.kind === "sealed" ? sql`` : stored}
      SELECT pod_id, hour_start, ms_in_hour(s.sample_time, hour_start) AS at_ms, guest_in_bytes, guest_out_bytes
      FROM strays s JOIN edges USING (pod_id, hour_start) WHERE is_own) AS single
    GROUP BY pod_id, hour_start)`;
}

/**
 * Common table expressions that give `evidence`: one row for each row of
 * `due (pod_id, tenant_id, hour_start, hour_end, supplement)`, also where there is nothing. `edges` must be
 * there too. A sample's quantities count in the hour of its last millisecond, its time in each hour.
 */
export function evidenceTables(source: EvidenceSource): Sql {
  const strayHour = { from: sql`s.hour_start`, to: sql`s.hour_end` };
  const added = joinSql(
    [
      nameColumns(summedFigures, (name) => `coalesce(m.${name}, 0) + coalesce(x.${name}, 0) AS ${name}`),
      nameColumns(greatestFigures, (name) => `greatest(m.${name}, x.${name}, 0) AS ${name}`),
    ],
    sql`, `,
  );
  // A frozen hour that had samples and kept no points had no edge then: its traffic cannot be told apart any more.
  const points =
    source.kind === "sealed"
      ? sql`CASE WHEN edge.pod_id IS NULL THEN NULL WHEN coalesce(m.sample_count, 0) = 0 THEN coalesce(p.traffic_points, '[]')
          ELSE m.traffic_points || coalesce(p.traffic_points, '[]') END`
      : sql`p.traffic_points`;
  return sql`${measuredTable(source)}, ${straysTable(source)},
    extra AS (
      SELECT pod_id, hour_start, ${nameColumns(summedFigures, (name) => `sum(s.${name}) FILTER (WHERE is_own) AS ${name}`)},
        ${nameColumns(greatestFigures, (name) => `max(s.${name}) FILTER (WHERE is_own) AS ${name}`)},
        ${coveredBySamples(strayHour)} AS covered, ${histogramOfSamples(strayHour)} AS cpu_histogram
      FROM strays s GROUP BY pod_id, hour_start),
    ${pointsTable(source)},
    evidence AS (
      SELECT d.pod_id, d.tenant_id, d.hour_start, d.hour_end, d.supplement, ${added},
        coalesce(m.covered, '{}') + coalesce(x.covered, '{}') AS covered,
        CASE WHEN x.pod_id IS NULL THEN coalesce(m.cpu_histogram, '{}') ELSE ${histogramMerged(sql`coalesce(m.cpu_histogram, '{}') || x.cpu_histogram`)} END AS cpu_histogram,
        ${points} AS traffic_points, x.pod_id IS NOT NULL AS has_strays
      FROM due d LEFT JOIN measured m USING (pod_id, hour_start) LEFT JOIN extra x USING (pod_id, hour_start)
      LEFT JOIN points p USING (pod_id, hour_start) LEFT JOIN edges edge USING (pod_id, hour_start))`;
}
