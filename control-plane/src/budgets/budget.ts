import { Money } from "@cloudpods/shared/money";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { BudgetLimits } from "./decide-budget.ts";

/** What a tenant means to spend and whom to tell. */
export interface Budget extends BudgetLimits {
  readonly tenantId: string;
  readonly emails: readonly string[];
  readonly webhookUrl: string | null;
  /** Month (UTC) in which the hard limit was reached and pods are stopped. */
  readonly exhaustedMonth: string | null;
  /** Of which moment the figures were by which that was last changed. */
  readonly exhaustionJudgedAt: Date | null;
  readonly version: number;
  readonly updatedAt: Date;
}

/** The month of an instant, in UTC as all months of usage: "2026-01". */
export function yearMonthOf(at: Date): string {
  return at.toISOString().slice(0, 7);
}

/** First instant of a month (UTC). */
export function monthStart(at: Date): Date {
  return new Date(Date.UTC(at.getUTCFullYear(), at.getUTCMonth(), 1));
}

/** The budget of a tenant; undefined when none is set. Locked to the end of the transaction when asked. */
export async function readBudget(tx: Queryable, tenantId: string, lock = false): Promise<Budget | undefined> {
  const [row] = await tx.query<
    Omit<Budget, "limit" | "thresholds"> & { amount: string; currency: string; thresholds: number[] }
  >(sql`
    SELECT tenant_id AS "tenantId", trim_scale(monthly_limit_amount)::text AS amount, currency,
      ARRAY[alert_threshold_1, alert_threshold_2, alert_threshold_3] AS thresholds, hard_limit_enabled AS "hardLimitEnabled",
      hard_limit_action AS "hardLimitAction", notification_emails AS emails, webhook_url AS "webhookUrl",
      exhausted_month AS "exhaustedMonth", exhaustion_judged_at AS "exhaustionJudgedAt", version, updated_at AS "updatedAt"
    FROM cloud_pod_budgets WHERE tenant_id = ${tenantId} ${lock ? sql`FOR UPDATE` : sql``}`);
  if (row === undefined) return undefined;
  const { amount, currency, ...rest } = row;
  return { ...rest, limit: Money.of(amount, currency) };
}

/** What a tenant can set. */
export type BudgetWish = Pick<
  Budget,
  "limit" | "thresholds" | "hardLimitEnabled" | "hardLimitAction" | "emails" | "webhookUrl"
>;

/** Sets the budget of a tenant; what follows from it is done by the next evaluation. */
export async function writeBudget(tx: Queryable, tenantId: string, wish: BudgetWish): Promise<void> {
  const [first, second, third] = wish.thresholds;
  await tx.execute(sql`
    INSERT INTO cloud_pod_budgets AS b (tenant_id, monthly_limit_amount, currency, alert_threshold_1, alert_threshold_2, alert_threshold_3,
      hard_limit_enabled, hard_limit_action, notification_emails, webhook_url)
    VALUES (${tenantId}, ${wish.limit.toString()}, ${wish.limit.currency}, ${first}, ${second}, ${third}, ${wish.hardLimitEnabled},
      ${wish.hardLimitAction}, ${[...wish.emails]}, ${wish.webhookUrl})
    ON CONFLICT (tenant_id) DO UPDATE SET monthly_limit_amount = excluded.monthly_limit_amount, currency = excluded.currency,
      alert_threshold_1 = excluded.alert_threshold_1, alert_threshold_2 = excluded.alert_threshold_2,
      alert_threshold_3 = excluded.alert_threshold_3, hard_limit_enabled = excluded.hard_limit_enabled,
      hard_limit_action = excluded.hard_limit_action, notification_emails = excluded.notification_emails,
      webhook_url = excluded.webhook_url, version = b.version + 1, updated_at = now()`);
}
