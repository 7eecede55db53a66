import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** A threshold that was reached in a month. Amounts are decimals in `currency`, as they were then. */
export interface BudgetAlert {
  readonly id: string;
  readonly yearMonth: string;
  readonly threshold: number;
  readonly currentSpend: string;
  readonly budgetLimit: string;
  readonly currency: string;
  readonly percentUsed: string;
  readonly notifiedVia: readonly ("email" | "webhook")[];
  readonly alertedAt: Date;
  readonly acknowledged: boolean;
  readonly acknowledgedAt: Date | null;
  readonly acknowledgedBy: string | null;
}

const columns = sql`id, year_month AS "yearMonth", threshold, trim_scale(current_spend_amount)::text AS "currentSpend",
  trim_scale(budget_limit_amount)::text AS "budgetLimit", currency, percent_used::text AS "percentUsed", notified_via AS "notifiedVia",
  alerted_at AS "alertedAt", acknowledged_at IS NOT NULL AS acknowledged, acknowledged_at AS "acknowledgedAt",
  acknowledged_by AS "acknowledgedBy"`;

/** Alerts of a tenant, newest first. */
export async function listAlerts(
  tx: Queryable,
  tenantId: string,
  limit: number,
  beforeId?: string,
): Promise<BudgetAlert[]> {
  return await tx.query<BudgetAlert>(sql`
    SELECT ${columns} FROM cloud_pod_budget_alerts
    WHERE tenant_id = ${tenantId} AND (${beforeId ?? null}::uuid IS NULL OR id < ${beforeId ?? null}::uuid)
    ORDER BY id DESC LIMIT ${limit}`);
}

/**
 * Notes who has seen an alert; a second time changes nothing.
 * @returns the alert, and whether this was the first time
 * @throws DomainError `ALERT_NOT_FOUND`
 */
export async function acknowledgeAlert(
  tx: Queryable,
  tenantId: string,
  id: string,
  userId: string,
): Promise<{ readonly alert: BudgetAlert; readonly isFirst: boolean }> {
  const [row] = await tx.query<BudgetAlert & { isFirst: boolean }>(sql`
    UPDATE cloud_pod_budget_alerts SET acknowledged_by = CASE WHEN acknowledged_at IS NULL THEN ${userId}::uuid ELSE acknowledged_by END,
      acknowledged_at = coalesce(acknowledged_at, now())
    WHERE tenant_id = ${tenantId} AND id = ${id} RETURNING ${columns}, acknowledged_at = now() AS "isFirst"`);
  if (row === undefined) throw new DomainError("not-found", "ALERT_NOT_FOUND", "There is no such alert.");
  const { isFirst, ...alert } = row;
  return { alert, isFirst };
}
