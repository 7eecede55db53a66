import type { Database, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { hourCosts } from "../rating/rated-hours.ts";
import { greatestFigures, nameColumns, summedFigures } from "./evidence.ts";
import { lockPeriod } from "./lock-period.ts";
import { ratedFigures, timeClasses } from "./roll-up-hours.ts";

/** Figures that a level adds up from the one below it. */
export const addedFigures = [...summedFigures, "uptime_ms", ...timeClasses, ...ratedFigures, ...hourCosts] as const;
const carried = [...addedFigures, ...greatestFigures, "cpu_histogram"] as const;
const written = [...carried, "hours", "currency", "supplement", "rolled_at"] as const;

/**
 * Makes a day (UTC) again from its hours, for the pods that its marks name. Once the hours are archived the
 * day as it was then counts as one more piece of evidence beside the hours that were made since.
 * @returns number of pods.
 */
export async function rollUpDay(db: Database, date: Date): Promise<number> {
  return await db.transaction(async (tx) => {
    await lockPeriod(tx, "day", date);
    await tx.query(
      sql`SELECT set_config('statement_timeout', '10min', true), set_config('work_mem', '256MB', true), set_config('jit', 'off', true)`,
    );
    return await rollUpLockedDay(tx, date);
  });
}

/** As `rollUpDay`, in the transaction of somebody who has locked the day. */
export async function rollUpLockedDay(tx: Transaction, date: Date): Promise<number> {
  const day = date.toISOString().slice(0, 10);
  const [state] = await tx.query<{ hoursArchived: boolean; daysArchived: boolean }>(sql`
    SELECT EXISTS (SELECT FROM usage_days WHERE day = ${day} AND hours_archived_at IS NOT NULL) AS "hoursArchived",
      EXISTS (SELECT FROM usage_months WHERE year_month = ${day.slice(0, 7)}) AS "daysArchived"`);
  const [done] = await tx.query<{ pods: bigint }>(
    dayStatement(day, state?.hoursArchived === true, state?.daysArchived === true),
  );
  return Number(done?.pods ?? 0);
}

/** The set of due pods of marks: those that they name, or all for which there is something below. */
export function isMarked(podId: Sql): Sql {
  return sql`((SELECT bool_or(pod_ids IS NULL) FROM marks) OR ${podId} IN (SELECT unnest(pod_ids) FROM marks))`;
}

function dayStatement(day: string, hoursArchived: boolean, daysArchived: boolean): Sql {
  const from = sql`(${day}::date::timestamp AT TIME ZONE 'UTC')`;
  const base = sql`
    UNION ALL SELECT d.pod_id, d.tenant_id, ${nameColumns(carried, (name) => `base.${name}`)}, base.hours, d.currency
    FROM cloud_pod_usage_daily d CROSS JOIN LATERAL jsonb_populate_record(d, coalesce(d.sealed_base, '{}')) AS base
    WHERE d.date = ${day} AND NOT d.supplement AND ${isMarked(sql`d.pod_id`)}`;
  return sql`
    WITH marks AS (DELETE FROM usage_dirty_days WHERE date = ${day} RETURNING pod_ids),
    sources AS MATERIALIZED (
      SELECT h.pod_id, h.tenant_id, ${nameColumns(carried, (name) => `h.${name}`)}, 1 AS hours, h.currency
      FROM cloud_pod_usage_hourly h
      WHERE h.hour_start >= ${from} AND h.hour_start < ${from} + interval '1 day' AND ${isMarked(sql`h.pod_id`)}
      ${hoursArchived ? base : sql``}),
    histograms AS (
      SELECT pod_id, array_agg(bucket * 4294967296 + ms ORDER BY bucket) AS cpu_histogram FROM (
        SELECT pod_id, entry >> 32 AS bucket, sum(entry & 4294967295)::bigint AS ms FROM sources, unnest(cpu_histogram) AS entry GROUP BY 1, 2) AS buckets
      GROUP BY pod_id),
    made AS (
      SELECT pod_id, min(tenant_id::text)::uuid AS tenant_id, ${nameColumns(addedFigures, (name) => `sum(${name}) AS ${name}`)},
        ${nameColumns(greatestFigures, (name) => `max(${name}) AS ${name}`)}, sum(hours) AS hours, max(currency) AS currency
      FROM sources GROUP BY pod_id),
    written AS (
      INSERT INTO cloud_pod_usage_daily (date, pod_id, tenant_id, sealed_base, ${nameColumns(written)})
      SELECT ${day}, pod_id, tenant_id, ${hoursArchived && !daysArchived ? emptyBase([...carried, "hours"]) : sql`NULL`}::jsonb, ${nameColumns([...addedFigures, ...greatestFigures])}, coalesce(h.cpu_histogram, '{}'), hours, currency,
        ${daysArchived}::boolean, clock_timestamp()
      FROM made LEFT JOIN histograms h USING (pod_id)
      ON CONFLICT (date, pod_id) DO UPDATE SET ${nameColumns(written, (name) => `${name} = EXCLUDED.${name}`)}
        ${hoursArchived ? keepBase : sql``}
      RETURNING pod_id),
    passed_on AS (
      INSERT INTO usage_dirty_months (year_month, pod_ids)
      SELECT ${day.slice(0, 7)}, CASE WHEN (SELECT bool_or(pod_ids IS NULL) FROM marks) THEN NULL ELSE array_agg(pod_id) END FROM written HAVING count(*) > 0)
    SELECT count(*) AS pods FROM written`;
}

/** The base of a row that is made only after what it is made of was archived: nothing. */
export function emptyBase(names: readonly string[]): Sql {
  return sql`${JSON.stringify(Object.fromEntries(names.map((name) => [name, name === "cpu_histogram" ? [] : 0])))}`;
}

const keepBase = sql`, sealed_base = coalesce(cloud_pod_usage_daily.sealed_base, jsonb_build_object(${nameColumns(
  [...carried, "hours"],
  (name) => `'${name}', to_jsonb(cloud_pod_usage_daily.${name})`,
)}))`;
