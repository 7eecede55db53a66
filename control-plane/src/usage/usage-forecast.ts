import { z } from "@hono/zod-openapi";
import { Money } from "@cloudpods/shared/money";
import { forecastMonth, type ForecastPod, type MonthForecast, type VaryingDay } from "../forecast/forecast-month.ts";
import { money, shownMoney, timestamp } from "../http/fields.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { AccruedMonth, AccruedPod } from "../rating/cost-parts.ts";
import { timezone, usdOf, usdText, yearMonth } from "./usage-fields.ts";
import { usageMonthOf } from "./usage-month.ts";

/** A month's forecast as `GET /usage/forecast` shows it. */
export const forecastView = z
  .object({
    yearMonth,
    timezone,
    at: timestamp,
    accruedCost: money,
    expectedCost: money.openapi({
      description: "At the month's end, if nothing more is ordered and nothing destroyed.",
    }),
    expectedCostUsd: usdText,
    interval: z
      .object({
        level: z.number().openapi({ example: 0.8, description: "Share of months that end in the interval." }),
        lower: money,
        lowerUsd: usdText,
        upper: money,
        upperUsd: usdText,
      })
      .nullable()
      .openapi({ description: "null with fewer than seven complete days." }),
    method: z.string(),
    daysObserved: z.number().int(),
  })
  .openapi("UsageForecast");

/** Days that say something about the coming ones. */
const daysUsed = 60;

const method =
  "What is accrued, plus plans and disks to the month's end, plus the daily sums of charges that vary (processor, memory, " +
  "traffic) carried on by simple exponential smoothing (local level model, averaged over smoothing parameters)";

/** Forecasts the month of an accrual; the transaction's tenant is the accrual's. */
export async function readForecast(tx: Queryable, month: AccruedMonth, tenantId: string): Promise<MonthForecast> {
  const { end } = usageMonthOf(month.at);
  const living = await tx.query<{ podId: string; billableFrom: Date }>(sql`
    SELECT id AS "podId", activated_at AS "billableFrom" FROM cloud_pods
    WHERE tenant_id = ${tenantId} AND activated_at IS NOT NULL AND deletion_requested_at IS NULL`);
  const accrued = new Map(month.perPod.map((pod) => [pod.podId, pod]));
  const pods = living.map((pod): ForecastPod => ({
    ...pod,
    varying: varyingOf(accrued.get(pod.podId), month.currency),
  }));
  const beyond = month.perPod.filter(({ perPart }) => !perPart.overage.isZero()).map(({ podId }) => podId);
  return forecastMonth({
    now: month.at,
    monthEnd: end,
    accrued: month.total,
    committedRest: await readCommitted(tx, tenantId, month.currency, month.at, end),
    pods,
    days: await readVaryingDays(tx, tenantId, month.at, beyond),
  });
}

function varyingOf(pod: AccruedPod | undefined, currency: string): Money {
  if (pod === undefined) return Money.zero(currency);
  const { cpu, memory, networkIn, networkOut, overage } = pod.perPart;
  return Money.sum([cpu, memory, networkIn, networkOut, overage], currency);
}

/** What plans and disks will cost from `from` to the month's end as things are, with the prices that are already decided. */
async function readCommitted(tx: Queryable, tenantId: string, currency: string, from: Date, end: Date): Promise<Money> {
  // By their pods, of which there is an index by tenant.
  const allocations = sql`(cloud_pods p JOIN cloud_pod_allocations a ON a.pod_id = p.id AND p.tenant_id = ${tenantId})`;
  const [row] = await tx.query<{ amount: string }>(sql`
    WITH rest AS (SELECT tstzrange(${from}, ${end}) AS period, ms_between(date_trunc('month', ${from}::timestamptz, 'UTC'), ${end}) AS month_ms),
    priced AS (
      SELECT pp.amount AS price, 1 AS quantity, a.valid * pp.valid * rest.period AS charged
      FROM rest JOIN ${allocations} ON a.billing_mode = 'plan' AND a.valid && rest.period
      JOIN cloud_pod_plan_prices pp ON pp.plan_code = a.plan_code AND pp.currency = ${currency} AND pp.valid && rest.period
      UNION ALL
      SELECT list.disk_gb_per_month, a.disk_gb, a.valid * tstzrange(list.effective_from, list.effective_until) * rest.period
      FROM rest JOIN ${allocations} ON a.billing_mode = 'metered' AND a.valid && rest.period
      JOIN ${priceLists(tenantId, currency, from)} AS list ON tstzrange(list.effective_from, list.effective_until) && rest.period)
    SELECT coalesce(sum(proportion(price, quantity::numeric * ms_between(lower(charged), upper(charged)), month_ms)), 0) AS amount
    FROM priced, rest WHERE NOT isempty(charged)`);
  return Money.of(row?.amount ?? "0", currency);
}

/** Days of pods; of those whose allowance is used up, plan traffic costs as what is beyond it. An allowance not yet used up is taken to last. */
async function readVaryingDays(
  tx: Queryable,
  tenantId: string,
  now: Date,
  beyondAllowance: readonly string[],
): Promise<VaryingDay[]> {
  const today = now.toISOString().slice(0, 10);
  const rows = await tx.query<{ podId: string; date: string; amount: string; currency: string }>(sql`
    SELECT d.pod_id AS "podId", d.date::text AS date, d.currency,
      d.cost_cpu + d.cost_memory + d.cost_network_in + d.cost_network_out
        + CASE WHEN d.pod_id = ANY (${[...beyondAllowance]}::uuid[]) THEN coalesce((
            SELECT proportion(list.network_out_gb, d.plan_out_bytes, 1073741824) FROM ${priceLists(tenantId, sql`d.currency`, now)} AS list
            WHERE tstzrange(list.effective_from, list.effective_until) @> ${now}::timestamptz), 0) ELSE 0 END AS amount
    FROM tenant_usage_daily d
    WHERE d.date >= ${today}::date - ${daysUsed}::integer AND d.date < ${today}::date`);
  return rows.map(({ amount, currency, ...day }) => ({ ...day, amount: Money.of(amount, currency) }));
}

/** Versions of the list that the tenant pays by now: the one that it names where that is in force, else the default. */
function priceLists(tenantId: string, currency: string | ReturnType<typeof sql>, now: Date) {
  return sql`(
    SELECT p.* FROM cloud_pod_pricing p JOIN tenants t ON t.id = ${tenantId}
    WHERE p.currency = ${currency} AND CASE WHEN EXISTS (
        SELECT FROM cloud_pod_pricing named WHERE named.name = t.pricing_name AND named.currency = p.currency
          AND tstzrange(named.effective_from, named.effective_until) @> ${now}::timestamptz)
      THEN p.name = t.pricing_name ELSE p.is_default END)`;
}

/** A forecast in the form of the answer. */
export function shownForecast(month: AccruedMonth, forecast: MonthForecast): z.infer<typeof forecastView> {
  const { expected, interval, daysObserved } = forecast;
  return {
    yearMonth: month.yearMonth,
    timezone: "UTC",
    at: month.at,
    accruedCost: shownMoney(month.total),
    expectedCost: shownMoney(expected),
    ...usdOf("expectedCostUsd", expected),
    interval:
      interval === undefined
        ? null
        : {
            level: interval.level,
            lower: shownMoney(interval.lower),
            ...usdOf("lowerUsd", interval.lower),
            upper: shownMoney(interval.upper),
            ...usdOf("upperUsd", interval.upper),
          },
    method,
    daysObserved,
  };
}
