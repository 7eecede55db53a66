import { Money } from "@cloudpods/shared/money";
import { evidenceTables } from "../metering/evidence.ts";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import type { costParts, AccruedMonth, AccruedPod, PartAmounts } from "./cost-parts.ts";
import { overageTables } from "./overage.ts";
import { pieceTables, ratedTable } from "./rated-hours.ts";

interface AccruedRow {
  readonly tenant_id: string;
  readonly currency: string;
  /** NULL on the one row of a tenant without pods. */
  readonly pod_id: string | null;
  readonly pod_name: string;
  readonly uptime_ms: bigint;
  readonly guest_out_bytes: bigint;
  readonly plan_out_bytes: bigint;
  readonly cpu: string;
  readonly memory: string;
  readonly disk: string;
  readonly networkIn: string;
  readonly networkOut: string;
  readonly plan: string;
  readonly overage: string;
}

/**
 * What a tenant owes for the UTC month of `at` up to `at`: the rated hours, and the hours that are not rolled
 * up yet rated here from their samples, by the same statements. Once everything is rolled up it equals the
 * month's row. For instants of the last three days; older ones are in the month's row.
 *
 * @param db the system's login (`cloudpods_system`): the samples behind it have no grant to tenants.
 * @throws Error for a tenant that does not exist.
 */
export async function accruedThisMonth(db: Queryable, tenantId: string, at: Date): Promise<AccruedMonth> {
  const accrued = (await accrueMonth(db, [tenantId], at)).get(tenantId);
  if (accrued === undefined) throw new Error(`there is no tenant ${tenantId}`);
  return accrued;
}

/** As `accruedThisMonth`, for many tenants in one statement; those without pods have a zero. */
export async function accrueMonth(
  db: Queryable,
  tenantIds: readonly string[],
  at: Date,
): Promise<ReadonlyMap<string, AccruedMonth>> {
  const rows = await db.query<AccruedRow>(accrualStatement(tenantIds, at));
  const byTenant = Map.groupBy(rows, (row) => row.tenant_id);
  return new Map([...byTenant].map(([tenantId, own]) => [tenantId, monthOf(own, at)]));
}

/** For those who are given the function. */
export type AccruedThisMonth = typeof accruedThisMonth;
/** For those who are given the function. */
export type AccrueMonth = typeof accrueMonth;

function monthOf(rows: readonly AccruedRow[], at: Date): AccruedMonth {
  const currency = rows[0]?.currency ?? "USD";
  const perPod: AccruedPod[] = rows.flatMap((row) => {
    if (row.pod_id === null) return [];
    const perPart = partsOf((part) => Money.of(row[part], currency));
    return [
      {
        podId: row.pod_id,
        podName: row.pod_name,
        total: Money.sum(Object.values(perPart), currency),
        perPart,
        guestOutBytes: row.guest_out_bytes,
        planOutBytes: row.plan_out_bytes,
        uptimeMs: row.uptime_ms,
      },
    ];
  });
  return {
    currency,
    yearMonth: at.toISOString().slice(0, 7),
    at,
    total: Money.sum(
      perPod.map((pod) => pod.total),
      currency,
    ),
    perPart: partsOf((part) =>
      Money.sum(
        perPod.map((pod) => pod.perPart[part]),
        currency,
      ),
    ),
    perPod,
  };
}

function partsOf(amount: (part: (typeof costParts)[number]) => Money): PartAmounts {
  return {
    cpu: amount("cpu"),
    memory: amount("memory"),
    disk: amount("disk"),
    networkIn: amount("networkIn"),
    networkOut: amount("networkOut"),
    plan: amount("plan"),
    overage: amount("overage"),
  };
}

/**
 * Whole days come from their rows unless a mark says that these are behind, everything else of the month from
 * the hours, and hours that nobody has made (the running one, and the last one for five minutes) from samples.
 */
function accrualStatement(tenantIds: readonly string[], at: Date): Sql {
  const figures = sql`uptime_ms, guest_out_bytes, plan_out_bytes, cost_cpu, cost_memory, cost_disk, cost_network_in, cost_network_out, cost_plan`;
  return sql`
    WITH month AS (SELECT date_trunc('month', ${at}::timestamptz, 'UTC') AS starts, (${at}::timestamptz AT TIME ZONE 'UTC')::date AS today),
    owners AS MATERIALIZED (SELECT id AS tenant_id, currency FROM tenants WHERE id = ANY(${tenantIds}::uuid[])),
    due AS MATERIALIZED (
      SELECT DISTINCT a.pod_id, a.tenant_id, hour AS hour_start, least(hour + interval '1 hour', ${at}) AS hour_end, false AS supplement
      -- By their pods, of which there is an index by tenant: of allocations there is only one by pod.
      FROM month, owners o JOIN cloud_pods own USING (tenant_id) JOIN cloud_pod_allocations a ON a.pod_id = own.id
      -- No condition that the bounds say already: each makes the planner expect fewer hours, until it takes them for two.
      CROSS JOIN LATERAL generate_series(date_bin('1 hour', greatest(starts, lower(a.valid)), '2000-01-01Z'),
        least(upper(a.valid), ${at}) - interval '1 microsecond', '1 hour') AS hour
      LEFT JOIN usage_hours made ON made.hour_start = hour AND hour + interval '1 hour' <= ${at}
      WHERE a.valid && tstzrange(starts, ${at}) AND made.hour_start IS NULL),
    ${pieceTables},
    ${evidenceTables({ kind: "pod-by-pod" })},
    ${ratedTable},
    running AS (
      SELECT e.pod_id, e.tenant_id, e.hour_start, length_ms(e.covered)::bigint AS uptime_ms, e.guest_out_bytes,
        cost_cpu, cost_memory, cost_disk, cost_network_in, cost_network_out, cost_plan, r.plan_out_bytes, r.allowance_gb
      FROM evidence e JOIN rated r USING (pod_id, hour_start)),
    whole_days AS (
      SELECT d.* FROM month, owners o JOIN cloud_pod_usage_daily d USING (tenant_id)
      WHERE d.date >= (starts AT TIME ZONE 'UTC')::date AND d.date < today AND NOT EXISTS (SELECT FROM usage_dirty_days m WHERE m.date = d.date)),
    single_hours AS (
      SELECT h.* FROM month, owners o JOIN cloud_pod_usage_hourly h USING (tenant_id)
      WHERE h.hour_start >= starts AND h.hour_start + interval '1 hour' <= ${at}
        AND (h.hour_start >= today::timestamp AT TIME ZONE 'UTC' OR EXISTS (SELECT FROM usage_dirty_days m WHERE m.date = (h.hour_start AT TIME ZONE 'UTC')::date))),
    counted_hours AS (
      SELECT h.pod_id, h.tenant_id, h.hour_start, h.plan_out_bytes, h.allowance_gb FROM month, owners o JOIN cloud_pod_usage_hourly h USING (tenant_id)
      WHERE h.hour_start >= starts AND h.hour_start + interval '1 hour' <= ${at}
      UNION ALL SELECT pod_id, tenant_id, hour_start, plan_out_bytes, allowance_gb FROM running),
    ${overageTables},
    parts AS (
      SELECT pod_id, tenant_id, ${figures} FROM whole_days
      UNION ALL SELECT pod_id, tenant_id, ${figures} FROM single_hours
      UNION ALL SELECT pod_id, tenant_id, ${figures} FROM running)
    SELECT o.tenant_id, o.currency, s.pod_id, p.name AS pod_name, s.uptime_ms::bigint, s.guest_out_bytes::bigint, s.plan_out_bytes::bigint,
      s.cpu, s.memory, s.disk, s."networkIn", s."networkOut", s.plan, coalesce(x.cost_overage, 0) AS overage
    FROM owners o LEFT JOIN (
      SELECT tenant_id, pod_id, sum(uptime_ms) AS uptime_ms, sum(guest_out_bytes) AS guest_out_bytes, sum(plan_out_bytes) AS plan_out_bytes, sum(cost_cpu) AS cpu, sum(cost_memory) AS memory,
        sum(cost_disk) AS disk, sum(cost_network_in) AS "networkIn", sum(cost_network_out) AS "networkOut", sum(cost_plan) AS plan
      FROM parts GROUP BY tenant_id, pod_id) AS s USING (tenant_id)
    LEFT JOIN cloud_pods p ON p.id = s.pod_id
    LEFT JOIN overages x ON x.pod_id = s.pod_id
    ORDER BY o.tenant_id, p.name, s.pod_id`;
}
