import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { nameColumns } from "./evidence.ts";

const hourMs = 3_600_000;

/** A row that does not agree with what it is made of. */
export interface MeteringFinding {
  readonly check:
    | "hours-made"
    | "samples-hours"
    | "archive-files"
    | "archive-hours"
    | "existence-hours"
    | "rates-hours"
    | "hours-days"
    | "days-months"
    | "overage-months"
    | "bills"
    | "unpriced";
  readonly podId: string | null;
  /** An hour, a day or a month. */
  readonly period: string;
  readonly figure: string;
  readonly expected: string;
  readonly found: string;
}

/** What a check looks at: [from, to). */
export interface TimeRange {
  readonly from: Sql;
  readonly to: Sql;
}

/** A whole month, "2026-01". */
export interface MonthRange extends TimeRange {
  readonly month: string;
}

/**
 * For checks of many rows. Nothing is known of the size of what they put together, and loops within loops over rows
 * that were thought to be one would take days.
 */
export async function preferHashingOfMany(tx: Queryable): Promise<void> {
  await tx.query(sql`SELECT set_config('statement_timeout', '30min', true), set_config('work_mem', '256MB', true),
    set_config('enable_nestloop', 'off', true)`);
}

/** The hours of a UTC day. */
export function hoursOfDay(starts: Date): TimeRange[] {
  return Array.from({ length: 24 }, (_, hour) => rangeOf(new Date(starts.getTime() + hour * hourMs), hourMs));
}

/** The time from an instant on, in ms. */
export function rangeOf(starts: Date, lengthMs: number): TimeRange {
  return { from: sql`${starts}::timestamptz`, to: sql`${new Date(starts.getTime() + lengthMs)}::timestamptz` };
}

/** Compares named figures of two rows and gives a finding for each that differs. */
export function differences(
  check: string,
  names: readonly string[],
  rows: { from: Sql; period: Sql; podId: Sql },
): Sql {
  const pairs = nameColumns(
    names,
    (name) => `('${name}', coalesce(expected.${name}, 0)::numeric, coalesce(found.${name}, 0)::numeric)`,
  );
  return sql`
    SELECT ${check}::text AS "check", ${rows.podId} AS "podId", (${rows.period})::text AS period, figure.name AS figure,
      figure.wanted::text AS expected, figure.got::text AS found
    FROM ${rows.from} CROSS JOIN LATERAL (VALUES ${pairs}) AS figure (name, wanted, got)
    WHERE figure.wanted <> figure.got`;
}

/** Hours that wait to be made again are left out. */
export function hasNoMark(hour: Sql): Sql {
  return sql`NOT EXISTS (SELECT FROM usage_dirty_hours mark WHERE mark.hour_start = ${hour})`;
}
