import type { Queryable } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { amountOf, textOf } from "./usage-truth/amounts.ts";
import type { Figures, TrueFigures } from "./usage-truth/true-figures.ts";

type StoredRow = Readonly<Record<string, bigint | number | string | Date | null>>;

/** Figures under the names of the truth. What was absent is known to be stopped or missing by what hosts told. */
function figuresOf(row: StoredRow): Figures {
  const figures: Figures = {};
  for (const [name, value] of Object.entries(row)) {
    if (name.startsWith("cost_")) figures[name] = amountOf(String(value));
    else if (typeof value === "bigint") figures[name] = value;
    else if (typeof value === "number") figures[name] = BigInt(value);
    else if (typeof value === "string" && /^-?\d+$/.test(value)) figures[name] = BigInt(value);
  }
  return figures;
}

async function readLevel(db: Queryable, table: string, time: string): Promise<Map<string, Figures>> {
  const rows = await db.query<StoredRow & { readonly key: string }>({
    text: `SELECT pod_id || '/' || ${time} AS key, *, not_running_ms + missing_ms AS absent_ms, measured_ms + late_ms AS present_ms FROM ${table}`,
    values: [],
  });
  return new Map(rows.map(({ key, ...row }) => [key, figuresOf(row)]));
}

/** Everything that is stored, under the keys of the truth. */
export async function storedFigures(db: Queryable): Promise<TrueFigures> {
  const hours = await readLevel(
    db,
    "cloud_pod_usage_hourly",
    "to_char(hour_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24')",
  );
  const days = await readLevel(db, "cloud_pod_usage_daily", "to_char(date, 'YYYY-MM-DD')");
  const months = await readLevel(db, "cloud_pod_usage_monthly", "year_month");
  const percentiles = await db.query<{ key: string; p95: number | null }>(sql`
    SELECT pod_id || '/' || to_char(date, 'YYYY-MM-DD') AS key, histogram_p95(cpu_histogram) AS p95 FROM cloud_pod_usage_daily`);
  for (const { key, p95 } of percentiles) {
    const figures = days.get(key);
    if (figures !== undefined && p95 !== null) figures["cpu_p95"] = BigInt(p95);
  }
  return { hours, days, months };
}

/** Where what is stored differs from the truth, as lines to read; empty when nothing does. */
export function differences(truth: TrueFigures, stored: TrueFigures): string[] {
  return (["hours", "days", "months"] as const).flatMap((level) => {
    const keys = new Set([...truth[level].keys(), ...stored[level].keys()]);
    return [...keys].flatMap((key) => compare(level, key, truth[level].get(key) ?? {}, stored[level].get(key)));
  });
}

function compare(level: string, key: string, truth: Figures, stored: Figures | undefined): string[] {
  if (stored === undefined) return [`${level} ${key}: not there`];
  const wanted =
    Object.keys(truth).length > 0 ? truth : Object.fromEntries(comparedNames(stored).map((name) => [name, 0n]));
  const differing = Object.entries(wanted).filter(([name, value]) => stored[name] !== value);
  const lines = differing.map(
    ([name, value]) => `${level} ${key}: ${name} is ${told(name, stored[name])}, truly ${told(name, value)}`,
  );
  if (stored["present_ms"] !== stored["uptime_ms"])
    lines.push(`${level} ${key}: measured and late time are not the uptime`);
  return lines;
}

/** A row that no truth is known of must be empty. */
function comparedNames(stored: Figures): string[] {
  return Object.keys(stored).filter((name) =>
    /^(cost_|guest_|io_|cpu_usage|sample_count|uptime|running|absent)/.test(name),
  );
}

function told(name: string, value: bigint | undefined): string {
  if (value === undefined) return "nothing";
  return name.startsWith("cost_") ? textOf(value) : String(value);
}
