import { Money } from "@cloudpods/shared/money";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { AccruedMonth } from "../rating/cost-parts.ts";

/** A month (UTC) and what was spent in it. */
export type SpentMonth = Pick<AccruedMonth, "yearMonth" | "total">;

/**
 * What an ended month came to, from the rows that are billed: its last minute and what came late are in them as soon
 * as they are rolled up. Tenants without usage in it are left out.
 * @param db the owner's login: these rows have no grant for tenants
 */
export async function readEndedMonth(
  db: Queryable,
  tenantIds: readonly string[],
  yearMonth: string,
): Promise<ReadonlyMap<string, SpentMonth>> {
  const rows = await db.query<{ tenantId: string; total: string; currency: string }>(sql`
    SELECT tenant_id AS "tenantId", sum(cost_total) AS total, currency FROM cloud_pod_usage_monthly
    WHERE tenant_id = ANY(${tenantIds}::uuid[]) AND year_month = ${yearMonth} GROUP BY tenant_id, currency`);
  return new Map(
    rows.map(({ tenantId, total, currency }) => [tenantId, { yearMonth, total: Money.of(total, currency) }]),
  );
}
