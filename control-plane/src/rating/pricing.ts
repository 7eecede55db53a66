import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import type { Rates } from "./rules.ts";

/** A version of a price list. */
export interface Pricing extends Rates {
  readonly id: string;
  readonly name: string;
  readonly networkInFree: boolean;
  readonly networkInGb: string;
  readonly isDefault: boolean;
  readonly effectiveFrom: Date;
  readonly effectiveUntil: Date | null;
}

/** Columns of `cloud_pod_pricing` that make a `Pricing`. */
export const pricingColumns: Sql = sql`id, name, currency, cpu_per_hour AS "cpuPerHour", memory_gb_per_hour AS "memoryGbPerHour",
  disk_gb_per_month AS "diskGbPerMonth", network_out_gb AS "networkOutGb", network_in_gb AS "networkInGb",
  network_in_free AS "networkInFree", is_default AS "isDefault", effective_from AS "effectiveFrom", effective_until AS "effectiveUntil"`;

/**
 * All of a SELECT but its columns that finds the price list `p` which is paid by at an instant: the named one where that is
 * in force, else the default of the currency.
 */
export function listInForce(currency: Sql, name: Sql, at: Sql): Sql {
  return sql`
    FROM cloud_pod_pricing p
    WHERE p.currency = ${currency} AND (p.name = ${name} OR p.is_default)
      AND p.effective_from <= ${at} AND (p.effective_until IS NULL OR p.effective_until > ${at})
    ORDER BY p.name IS NOT DISTINCT FROM ${name} DESC LIMIT 1`;
}

/** The price list in force at an instant, see `listInForce`. Readable by both logins. */
export async function pricingInForce(
  db: Queryable,
  wanted: { readonly currency: string; readonly name?: string | null | undefined },
  at: Date,
): Promise<Pricing | undefined> {
  const list = listInForce(sql`${wanted.currency}`, sql`${wanted.name ?? null}`, sql`${at}`);
  const [row] = await db.query<Pricing>(sql`SELECT ${pricingColumns} ${list}`);
  return row;
}
