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
  readonly createdAt: Date;
}

/** Columns of `tenants` that make a `Tenant`. */
export const tenantColumns = sql`id, slug, name, status, region, currency, billing_email AS "billingEmail", timezone, created_at AS "createdAt"`;
