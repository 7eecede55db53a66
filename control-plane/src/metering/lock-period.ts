import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** What is made by one at a time. */
export type Period = "hour" | "day" | "month";

const hourMs = 3_600_000;

/**
 * Waits until nobody else makes figures of the period, and keeps others waiting until the transaction ends.
 * A statement of its own: what the next one reads includes all that the one before has committed.
 */
export async function lockPeriod(tx: Queryable, period: Period, start: Date): Promise<void> {
  await tx.query(sql`SELECT pg_advisory_xact_lock(hashtext(${`usage ${period}`}), ${periodNumber(period, start)})`);
}

function periodNumber(period: Period, start: Date): number {
  if (period === "month") return start.getUTCFullYear() * 12 + start.getUTCMonth();
  return Math.floor(start.getTime() / (period === "day" ? 24 * hourMs : hourMs));
}
