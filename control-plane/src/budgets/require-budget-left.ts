import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/**
 * Requires that the tenant's hard limit does not forbid to start or order anything now. A start that slips through
 * at the same moment is stopped by the next evaluation. Works under both logins.
 * @throws DomainError `quota-exceeded` BUDGET_EXHAUSTED
 */
export async function requireBudgetLeft(tx: Queryable, tenantId: string): Promise<void> {
  const [budget] = await tx.query<{ limit: string; currency: string; month: string }>(sql`
    SELECT trim_scale(monthly_limit_amount)::text AS limit, currency, exhausted_month AS month FROM cloud_pod_budgets
    WHERE tenant_id = ${tenantId} AND hard_limit_enabled AND hard_limit_action = 'stop_pods'
      AND exhausted_month = to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')`);
  if (budget === undefined) return;
  throw new DomainError(
    "quota-exceeded",
    "BUDGET_EXHAUSTED",
    `The budget of ${budget.limit} ${budget.currency} for ${budget.month} is spent and stops pods; raise it or wait for the next month (UTC).`,
    { details: { ...budget } },
  );
}
