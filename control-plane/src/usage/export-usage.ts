import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { csvRecord } from "./csv.ts";
import { focusColumns, focusRows, type ChargedPeriod, type FocusAccount } from "./focus.ts";
import type { UsageMonth } from "./usage-month.ts";

/** What an export is of, and how it reads. */
export interface ExportOptions {
  readonly tenantId: string;
  readonly month: UsageMonth;
  readonly now: Date;
  /** Runs one read in a transaction of its own in which the tenant is set; between reads no connection is held. */
  readonly read: <T>(work: (tx: Queryable) => Promise<T>) => Promise<T>;
}

const rowsAtOnce = 500;
/** Days are archived a year after their month; of months that began longer ago than this only their own figures are surely whole. */
const dailyForMs = 364 * 86_400_000;

/**
 * A tenant's month (UTC) as CSV in FOCUS columns, a part for each page that was read. Rows are of pods and days, of pods alone where the
 * days are gone and for what only a month has (traffic beyond an allowance). A month that still runs holds what is rolled up so
 * far; the costs of a closed one sum to what was billed.
 * @throws DomainError `not-found` TENANT_NOT_FOUND
 */
export async function exportUsage(options: ExportOptions): Promise<AsyncIterable<string>> {
  const { tenantId, month, read } = options;
  const [tenant] = await read((tx) => tx.query<{ name: string }>(sql`SELECT name FROM tenants WHERE id = ${tenantId}`));
  if (tenant === undefined) throw new DomainError("not-found", "TENANT_NOT_FOUND", "There is no such tenant.");
  return parts(options, { tenantId, tenantName: tenant.name, month });
}

async function* parts(options: ExportOptions, account: FocusAccount): AsyncGenerator<string> {
  yield csvRecord(focusColumns);
  const hasDays = options.now.getTime() - account.month.start.getTime() < dailyForMs;
  if (hasDays) yield* records(account, pages(options, daily(options)));
  yield* records(account, pages(options, monthly(options, hasDays)));
}

async function* records(account: FocusAccount, all: AsyncIterable<ChargedPeriod[]>): AsyncGenerator<string> {
  for await (const page of all) {
    const text = page.flatMap((period) => focusRows(account, period).map((row) => csvRecord(row))).join("");
    if (text !== "") yield text;
  }
}

/** Rows in the order of pods and times, page by page from after the last one seen. */
async function* pages(options: ExportOptions, source: Sql): AsyncGenerator<ChargedPeriod[]> {
  let after: ChargedPeriod | undefined;
  for (;;) {
    const beyond =
      after === undefined
        ? sql`true`
        : // The first condition lets the index skip to the pod; the second alone cannot.
          sql`u.pod_id >= ${after.podId}::uuid AND (u.pod_id, u.start) > (${after.podId}::uuid, ${after.start}::timestamptz)`;
    const page: ChargedPeriod[] = await options.read((tx) =>
      tx.query<ChargedPeriod>(sql`
        SELECT u.pod_id AS "podId", p.name AS "podName", p.region, p.labels, u.start, u.end, u.currency,
          u.measured_ms + u.late_ms + u.not_running_ms + u.missing_ms AS "existenceMs", u.core_ms AS "coreMs",
          u.memory_mb_ms AS "memoryMbMs", u.disk_gb_ms AS "diskGbMs", u.billable_in_bytes AS "billableInBytes",
          u.billable_out_bytes AS "billableOutBytes", u.overage_bytes AS "overageBytes", u.cost_cpu AS "costCpu",
          u.cost_memory AS "costMemory", u.cost_disk AS "costDisk", u.cost_network_in AS "costNetworkIn",
          u.cost_network_out AS "costNetworkOut", u.cost_plan AS "costPlan", u.cost_overage AS "costOverage", u.cost_late AS "costLate"
        FROM (${source}) AS u JOIN cloud_pods p ON p.id = u.pod_id AND p.tenant_id = ${options.tenantId}
        WHERE ${beyond} ORDER BY u.pod_id, u.start LIMIT ${rowsAtOnce}`),
    );
    if (page.length > 0) yield page;
    after = page.at(-1);
    if (page.length < rowsAtOnce) return;
  }
}

function daily({ month }: ExportOptions): Sql {
  return sql`
    SELECT d.*, d.date::timestamp AT TIME ZONE 'UTC' AS start, (d.date + 1)::timestamp AT TIME ZONE 'UTC' AS end, 0::bigint AS overage_bytes,
      0::numeric AS cost_overage, 0::numeric AS cost_late
    FROM tenant_usage_daily d
    WHERE d.date >= ${day(month.start)}::date AND d.date < ${day(month.end)}::date`;
}

/** Whole months, or only what their days do not have. */
function monthly({ month }: ExportOptions, daysAreThere: boolean): Sql {
  const times = sql`${month.start}::timestamptz AS start, ${month.end}::timestamptz AS end`;
  const late = sql`CASE WHEN m.closed_at IS NULL THEN 0 ELSE m.adjusted_cost END`;
  if (!daysAreThere) {
    return sql`SELECT m.*, ${times}, ${late} AS cost_late FROM tenant_usage_monthly m WHERE m.year_month = ${month.yearMonth}`;
  }
  return sql`
    SELECT m.pod_id, ${times}, m.currency, m.measured_ms, m.late_ms, m.not_running_ms, m.missing_ms, m.core_ms, m.memory_mb_ms,
      m.disk_gb_ms, m.billable_in_bytes, m.billable_out_bytes, m.overage_bytes, 0::numeric AS cost_cpu, 0::numeric AS cost_memory,
      0::numeric AS cost_disk, 0::numeric AS cost_network_in, 0::numeric AS cost_network_out, 0::numeric AS cost_plan,
      m.cost_overage, ${late} AS cost_late
    FROM tenant_usage_monthly m
    WHERE m.year_month = ${month.yearMonth} AND (m.cost_overage <> 0 OR ${late} <> 0)`;
}

function day(at: Date): string {
  return at.toISOString().slice(0, 10);
}
