import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
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

/**
 * The price list in force at an instant: the named one, else the default of the currency. Readable by both
 * logins.
 */
export async function pricingInForce(
  db: Queryable,
  wanted: { readonly currency: string; readonly name?: string | null | undefined },
  at: Date,
): Promise<Pricing | undefined> {
  const [row] = await db.query<Pricing>(sql`
    SELECT id, name, currency, cpu_per_hour AS "cpuPerHour", memory_gb_per_hour AS "memoryGbPerHour", disk_gb_per_month AS "diskGbPerMonth",
      network_out_gb AS "networkOutGb", network_in_gb AS "networkInGb", network_in_free AS "networkInFree", is_default AS "isDefault",
      effective_from AS "effectiveFrom", effective_until AS "effectiveUntil"
    FROM cloud_pod_pricing
    WHERE currency = ${wanted.currency} AND (name = ${wanted.name ?? null} OR is_default)
      AND effective_from <= ${at} AND (effective_until IS NULL OR effective_until > ${at})
    ORDER BY name IS NOT DISTINCT FROM ${wanted.name ?? null} DESC LIMIT 1`);
  return row;
}
