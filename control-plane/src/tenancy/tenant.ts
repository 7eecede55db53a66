import { sql } from "../platform/sql.ts";

/** A paying party. */
export interface Tenant {
  readonly id: string;
  readonly slug: string;
  readonly name: string;
  readonly status: "active" | "suspended" | "closed";
  readonly region: string | null;
  readonly currency: string;
  readonly billingEmail: string | null;
  readonly timezone: string;
  /** Of the price list that was agreed; null: the default of the currency. */
  readonly pricingName: string | null;
  readonly createdAt: Date;
}

/** Columns of `tenants` that make a `Tenant`. */
export const tenantColumns = sql`id, slug, name, status, region, currency, billing_email AS "billingEmail", timezone,
  pricing_name AS "pricingName", created_at AS "createdAt"`;
