import type { Database, Transaction } from "../platform/database.ts";
import { prepared, sql, type Sql } from "../platform/sql.ts";
import { hourCosts, pieceTables, ratedTable } from "../rating/rated-hours.ts";
import { evidenceTables, greatestFigures, nameColumns, summedFigures, type EvidenceSource } from "./evidence.ts";
import { lockPeriod } from "./lock-period.ts";

const hourMs = 3_600_000;
/** More due pods than this and the hour is read in one go. */
const podByPodMax = 2_000;

/** Figures of a pod-hour that come from what the pod was, not from its samples; added up in days and months. */
export const ratedFigures = [
  "core_ms",
  "memory_mb_ms",
  "disk_gb_ms",
  "billable_in_bytes",
  "billable_out_bytes",
  "plan_out_bytes",
  "unpriced_ms",
] as const;

/** Minutes by class, in ms. */
export const timeClasses = ["measured_ms", "late_ms", "not_running_ms", "missing_ms"] as const;

/** What one roll-up did. */
export interface HourRollUp {
  readonly marks: number;
  readonly pods: number;
}

/**
 * Makes the figures of an hour that is over again, for the pods that its marks name; the first time for every
 * pod that existed in it, with samples or without. The first statement waits for whoever works on the hour;
 * the last takes the marks and reads the samples in one snapshot, so a mark that commits later stays for the
 * next run and nobody writes figures older than those that are there.
 */
export async function rollUpHour(db: Database, hourStart: Date, now: Date): Promise<HourRollUp> {
  return await db.transaction(async (tx) => {
    await lockPeriod(tx, "hour", hourStart);
    await tx.query(sql`SELECT set_config('statement_timeout', '10min', true)`);
    return await rollUpLockedHour(tx, hourStart, now);
  });
}

/** As `rollUpHour`, in the transaction of somebody who has locked the hour. */
export async function rollUpLockedHour(tx: Transaction, hourStart: Date, now: Date): Promise<HourRollUp> {
  const hourEnd = new Date(hourStart.getTime() + hourMs);
  // Only what the lock holds still, and guesses at sizes: nothing here decides what is counted.
  const [state] = await tx.query<HourState>(sql`
    SELECT NOT EXISTS (SELECT FROM usage_hours WHERE hour_start = ${hourStart}) AS first,
      greatest(d.sealed_at, d.hours_archived_at, m.days_archived_at) AS "frozenAt", d.hours_archived_at IS NOT NULL AS archived,
      (SELECT count(*) FROM (${duePods(sql`usage_dirty_hours`, hourStart, hourEnd)} LIMIT ${podByPodMax + 1}) AS due_pods) <= ${podByPodMax} AS few
    FROM (SELECT (${hourStart}::timestamptz AT TIME ZONE 'UTC')::date AS date) AS own
    LEFT JOIN usage_days d ON d.day = own.date LEFT JOIN usage_months m ON m.year_month = to_char(own.date, 'YYYY-MM')`);
  if (state === undefined) throw new Error("a query without a table has a row");
  const source: EvidenceSource =
    state.frozenAt !== null
      ? { kind: "sealed", at: state.frozenAt }
      : state.few
        ? { kind: "pod-by-pod" }
        : { kind: "whole-hour", from: hourStart, to: hourEnd };
  if (source.kind === "whole-hour") await preferHashing(tx);
  const statement = rollUpStatement({ hourStart, hourEnd, now, source, ...state });
  // Planning takes longer than making an hour of few pods; one of the whole fleet is worth a plan of its own.
  const [done] = await tx.query<HourRollUp>(source.kind === "whole-hour" ? statement : prepared(statement));
  return { marks: Number(done?.marks ?? 0), pods: Number(done?.pods ?? 0) };
}

interface HourState {
  readonly first: boolean;
  readonly frozenAt: Date | null;
  readonly archived: boolean;
  readonly few: boolean;
}

/** One pass over an hour of the whole fleet is quickest when nothing is sorted and nothing spills to the disk. */
async function preferHashing(tx: Transaction): Promise<void> {
  await tx.query(sql`SELECT set_config('work_mem', '512MB', true), set_config('hash_mem_multiplier', '4', true),
    set_config('enable_indexscan', 'off', true), set_config('enable_nestloop', 'off', true), set_config('jit', 'off', true)`);
}

/** Pods that marks name, and all that existed in the hour when it is made for the first time. */
function duePods(marks: Sql, from: Date, to: Date): Sql {
  return sql`
    SELECT pod_id FROM ${marks} AS m WHERE pod_id IS NOT NULL AND hour_start = ${from}
    UNION SELECT p.pod_id FROM ${marks} AS m JOIN cloud_pod_placements p ON p.node_id = m.node_id
      WHERE m.hour_start = ${from} AND p.placed_from < ${to}::timestamptz + interval '1 minute'
        AND coalesce(p.placed_to, 'infinity') > ${from}::timestamptz - interval '1 minute'
    UNION SELECT a.pod_id FROM cloud_pod_allocations a
      WHERE a.valid && tstzrange(${from}, ${to}) AND NOT EXISTS (SELECT FROM usage_hours WHERE hour_start = ${from})`;
}

interface HourWork {
  readonly hourStart: Date;
  readonly hourEnd: Date;
  readonly now: Date;
  readonly source: EvidenceSource;
  readonly first: boolean;
  readonly archived: boolean;
}

const measuredColumns = [...summedFigures, ...greatestFigures, "covered", "cpu_histogram", "traffic_points"] as const;
const writtenColumns = [
  ...measuredColumns,
  "uptime_ms",
  ...timeClasses,
  ...ratedFigures,
  ...hourCosts,
  "allowance_gb",
  "currency",
  "final_at",
  "timely",
  "supplement",
  "rolled_at",
] as const;

function rollUpStatement({ hourStart, hourEnd, now, source, first, archived }: HourWork): Sql {
  const isFrozen = source.kind === "sealed";
  return sql`
    WITH marks AS (DELETE FROM usage_dirty_hours WHERE hour_start = ${hourStart} RETURNING hour_start, node_id, pod_id),
    due AS MATERIALIZED (
      SELECT p.id AS pod_id, p.tenant_id, ${hourStart}::timestamptz AS hour_start, ${hourEnd}::timestamptz AS hour_end, ${archived}::boolean AS supplement
      FROM cloud_pods p WHERE p.id IN (${duePods(sql`marks`, hourStart, hourEnd)})),
    ${pieceTables},
    ${evidenceTables(source)},
    ${ratedTable},
    ${classTables(hourStart, hourEnd)},
    made AS (
      SELECT e.tenant_id, e.pod_id, e.hour_start, ${nameColumns([...summedFigures, ...greatestFigures], (name) => `e.${name}`)},
        e.covered, length_ms(e.covered) AS uptime_ms, e.traffic_points,
        e.cpu_histogram,
        CASE WHEN e.supplement THEN '{}' ELSE coalesce(l.lifetime, '{}') END AS existed,
        coalesce(f.is_final, true) OR ${now}::timestamptz >= ${hourEnd}::timestamptz + interval '72 hours' AS is_final, t.currency, e.supplement,
        ${nameColumns([...ratedFigures, ...hourCosts], (name) => `coalesce(r.${name}, 0) AS ${name}`)}, r.allowance_gb
      FROM evidence e JOIN tenants t ON t.id = e.tenant_id LEFT JOIN rated r USING (pod_id, hour_start)
      LEFT JOIN lifetimes l USING (pod_id) LEFT JOIN finality f USING (pod_id)),
    ${reportTables(hourStart, hourEnd)},
    settled AS (
      SELECT made.*, coalesce(reports.reported, '{}') AS reported, old.final_at AS old_final_at, old.allowance_gb AS old_allowance_gb,
        ${isFrozen ? sql`coalesce(old.timely, '{}')` : sql`CASE WHEN old.final_at IS NULL THEN made.covered ELSE old.timely END`} AS timely_covered,
        coalesce(old.not_running_ms + old.missing_ms, 0) AS old_absent_ms, coalesce(old.missing_ms, 0) AS old_missing_ms
      FROM made LEFT JOIN cloud_pod_usage_hourly old ON old.hour_start = made.hour_start AND old.pod_id = made.pod_id AND NOT old.supplement
      LEFT JOIN reports ON reports.pod_id = made.pod_id),
    written AS (
      INSERT INTO cloud_pod_usage_hourly (hour_start, pod_id, tenant_id, sealed_base, ${nameColumns(writtenColumns)})
      SELECT hour_start, pod_id, tenant_id, ${isFrozen ? nothingMeasured : sql`NULL`}::jsonb, ${nameColumns(measuredColumns)}, uptime_ms,
        CASE WHEN covered = timely_covered THEN uptime_ms ELSE length_ms(covered * timely_covered) END,
        CASE WHEN covered = timely_covered THEN 0 ELSE length_ms(covered - timely_covered) END,
        ${absentTime(isFrozen)},
        ${nameColumns([...ratedFigures, ...hourCosts])}, coalesce(old_allowance_gb, allowance_gb), currency,
        CASE WHEN old_final_at IS NOT NULL THEN old_final_at WHEN is_final THEN ${now}::timestamptz END,
        CASE WHEN old_final_at IS NOT NULL OR is_final THEN timely_covered END, supplement, clock_timestamp()
      FROM settled
      ON CONFLICT (hour_start, pod_id) DO UPDATE SET ${nameColumns(writtenColumns, (name) => `${name} = EXCLUDED.${name}`)}${isFrozen ? keepBase : sql``}
      RETURNING pod_id),
    counted AS (INSERT INTO usage_hours (hour_start, rolled_at) VALUES (${hourStart}, ${now}) ON CONFLICT DO NOTHING),
    passed_on AS (
      INSERT INTO usage_dirty_days (date, pod_ids)
      SELECT (${hourStart}::timestamptz AT TIME ZONE 'UTC')::date, ${first ? sql`NULL` : sql`array_agg(pod_id)`} FROM written HAVING count(*) > 0)
    SELECT (SELECT count(*) FROM marks) AS marks, (SELECT count(*) FROM written) AS pods`;
}

/** Figures as they were when the samples were archived; kept from the first late sample on. */
const keepBase = sql`, sealed_base = coalesce(cloud_pod_usage_hourly.sealed_base, jsonb_build_object(${nameColumns(
  measuredColumns,
  (name) => `'${name}', to_jsonb(cloud_pod_usage_hourly.${name})`,
)}))`;

/** The base of a row that is made only after the samples were archived: what came late is all that it has. */
const nothingMeasured: Sql = sql`${JSON.stringify({
  ...Object.fromEntries([...summedFigures, ...greatestFigures].map((name) => [name, 0])),
  covered: "{}",
  cpu_histogram: [],
  traffic_points: null,
})}`;

/**
 * not_running_ms and missing_ms: the two parts of the time in which the pod existed and is not known to have run. Of
 * a frozen hour it is no more known when which was: time that turns out to be covered, or not to have been existed in,
 * was missing first.
 */
function absentTime(isFrozen: boolean): Sql {
  if (!isFrozen)
    return sql`CASE WHEN existed <@ covered THEN 0 ELSE length_ms((existed - covered) * reported) END,
      CASE WHEN existed <@ covered THEN 0 ELSE length_ms(existed - covered - reported) END`;
  const absent = sql`length_ms(existed - covered)`;
  const missing = sql`least(${absent}, greatest(0, old_missing_ms - old_absent_ms + ${absent}))`;
  return sql`${absent} - ${missing}, ${missing}`;
}

/**
 * `lifetimes`: when each due pod existed. `finality`: whether nothing more is expected of it, because every host it
 * was on has delivered everything up to then or is lost.
 */
function classTables(from: Date, to: Date): Sql {
  const ms = (at: Sql) => sql`ms_in_hour(${at}, ${from})`;
  const isWhole = sql`a.valid @> tstzrange(${from}, ${to})`;
  return sql`
    lifetimes AS (
      SELECT d.pod_id, CASE WHEN bool_or(${isWhole}) THEN '{[0,3600000)}' ELSE
        range_agg(int4range(${ms(sql`lower(a.valid)`)}, ${ms(sql`coalesce(upper(a.valid), ${to})`)})) FILTER (WHERE NOT ${isWhole}) END AS lifetime
      FROM due d JOIN cloud_pod_allocations a ON a.pod_id = d.pod_id AND a.valid && tstzrange(${from}, ${to}) GROUP BY d.pod_id),
    node_ends AS (
      SELECT n.node_id, CASE WHEN n.state IN ('lost', 'removed') THEN 'infinity' ELSE
        (SELECT max(s.complete_until) FROM node_spools s WHERE s.node_id = n.node_id) END AS known_until
      FROM node_status n),
    finality AS (
      SELECT d.pod_id, bool_and(coalesce(e.known_until >= least(${to}, p.placed_to), false)) AS is_final
      FROM due d JOIN cloud_pod_placements p ON p.pod_id = d.pod_id AND p.placed_from < ${to} AND coalesce(p.placed_to, 'infinity') > ${from}
      LEFT JOIN node_ends e USING (node_id) GROUP BY d.pod_id)`;
}

/**
 * `reports`: for which ms of the hour the hosts of pods that were absent reported, while these were placed there. A
 * pod that is absent from a report was not running; one that could not be read is missing.
 */
function reportTables(from: Date, to: Date): Sql {
  const ms = (at: Sql) => sql`ms_in_hour(${at}, ${from})`;
  const covers = sql`range_agg(int4range(${ms(sql`c.covers_from`)}, ${ms(sql`c.covers_to`)}))`;
  const inHour = sql`c.covers_to > ${from} AND c.covers_to < ${to}::timestamptz + interval '1 day' AND c.covers_from < ${to}`;
  return sql`
    absent AS (SELECT pod_id FROM made WHERE NOT existed <@ covered),
    node_reports AS (SELECT s.node_id, ${covers} AS reported FROM node_coverage c JOIN node_spools s USING (spool_no) WHERE ${inHour} GROUP BY s.node_id),
    unreadable AS (
      SELECT s.node_id, vmid, ${covers} AS unread FROM node_coverage c JOIN node_spools s USING (spool_no) CROSS JOIN LATERAL unnest(c.unreadable_vmids) AS vmid
      WHERE ${inHour} AND c.unreadable_vmids <> '{}' GROUP BY s.node_id, vmid),
    reports AS (
      SELECT p.pod_id, range_agg((n.reported - coalesce(u.unread, '{}')) * int4multirange(int4range(
        ${ms(sql`p.placed_from`)}, ${ms(sql`coalesce(p.placed_to, ${to})`)}))) AS reported
      FROM absent a JOIN cloud_pod_placements p ON p.pod_id = a.pod_id AND p.placed_from < ${to} AND coalesce(p.placed_to, 'infinity') > ${from}
      JOIN node_reports n ON n.node_id = p.node_id
      LEFT JOIN unreadable u ON u.node_id = p.node_id AND u.vmid = p.vmid
      GROUP BY p.pod_id)`;
}
