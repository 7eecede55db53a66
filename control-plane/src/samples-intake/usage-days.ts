import { sql } from "../platform/sql.ts";
import type { Queryable } from "../platform/database.ts";
import type { StorePool, StoreTransaction } from "./store-pool.ts";

const dayMs = 86_400_000;
/** Raw samples are kept this long after their day; a day older than that is not opened any more. */
const rawRetentionMs = 72 * 3_600_000;
const daysAhead = 3;

/** Day of a sample: that of the last millisecond of its interval, in days since 1970 UTC. */
export function usageDay(lastMs: number): number {
  return Math.floor(lastMs / dayMs);
}

/** Whether a day may still get a partition when it has none. */
export function mayOpenDay(day: number, nowMs: number): boolean {
  return (day + 1) * dayMs + rawRetentionMs > nowMs;
}

/** Makes the partitions of days, each once. */
export interface UsageDays {
  /** Returns when each of the days has or had its partition. */
  make(days: Iterable<number>): Promise<void>;
  /** The days around now and those ahead. */
  makeAhead(nowMs: number): Promise<void>;
}

/** Remembers what was made, so that a day costs its statements once per process. */
export function usageDays(pool: StorePool): UsageDays {
  const made = new Set<number>();
  async function make(days: Iterable<number>): Promise<void> {
    for (const day of days) {
      if (made.has(day)) continue;
      await pool.transaction(30_000, (tx) => makeDay(tx, day));
      made.add(day);
    }
  }
  return {
    make,
    makeAhead: (nowMs) => {
      const today = usageDay(nowMs);
      return make(Array.from({ length: daysAhead + 2 }, (_, index) => today - 1 + index));
    },
  };
}

/**
 * Makes a day's partition unless the day was ever made. The table is made aside and then attached,
 * because CREATE TABLE … PARTITION OF would lock out every insert while it waits for one reader.
 */
async function makeDay(tx: StoreTransaction, day: number): Promise<void> {
  await tx.query(sql`SELECT set_config('lock_timeout', '2s', true)`);
  await tx.query(sql`SELECT pg_advisory_xact_lock(hashtext('usage_days'), ${day})`);
  const known = await tx.query(sql`SELECT FROM usage_days WHERE day = ${isoDay(day)}`);
  if (known.length > 0) return;
  const name = `cloud_pod_usage_samples_${isoDay(day).replaceAll("-", "")}`;
  const from = `${isoDay(day)} 00:00:00.001+00`;
  const to = `${isoDay(day + 1)} 00:00:00.001+00`;
  // Made of digits only; a definition takes no parameters.
  await tx.query({
    text: `CREATE TABLE ${name} (LIKE cloud_pod_usage_samples INCLUDING DEFAULTS INCLUDING CONSTRAINTS)`,
    values: [],
  });
  await tx.query({
    text: `ALTER TABLE cloud_pod_usage_samples ATTACH PARTITION ${name} FOR VALUES FROM ('${from}') TO ('${to}')`,
    values: [],
  });
  await tx.query(sql`INSERT INTO usage_days (day) VALUES (${isoDay(day)})`);
}

/**
 * Says which of the days can be written to, for the rest of the transaction: whoever seals a day takes
 * the same lock exclusively, so a day is not sealed while somebody still writes to it.
 */
export async function lockOpenDays(tx: Queryable, days: readonly number[]): Promise<Set<number>> {
  // Two statements: the second must see what a sealing that we waited for has committed.
  await tx.query(
    sql`SELECT pg_advisory_xact_lock_shared(hashtext('usage_days'), day) FROM unnest(${days}::integer[]) AS day ORDER BY day`,
  );
  const rows = await tx.query<{ day: number }>(
    sql`SELECT day - date '1970-01-01' AS day FROM usage_days WHERE day = ANY(${days.map(isoDay)}::date[]) AND sealed_at IS NULL`,
  );
  return new Set(rows.map((row) => row.day));
}

function isoDay(day: number): string {
  return new Date(day * dayMs).toISOString().slice(0, 10);
}
