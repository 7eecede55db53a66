import type { Queryable } from "../platform/database.ts";
import type { AccruedMonth } from "./cost-parts.ts";

/**
 * What a tenant owes for the month of `at` up to `at`: the rated hours, and the hours that are not rolled up
 * yet rated here from their samples, by the same statement.
 *
 * @param db the system's login (`cloudpods_system`): the samples behind it have no grant to tenants.
 */
export type AccruedThisMonth = (db: Queryable, tenantId: string, at: Date) => Promise<AccruedMonth>;

/** As `AccruedThisMonth` for many tenants in one statement; tenants without pods have a zero. */
export type AccrueMonth = (
  db: Queryable,
  tenantIds: readonly string[],
  at: Date,
) => Promise<ReadonlyMap<string, AccruedMonth>>;
