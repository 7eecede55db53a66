import { newId } from "@cloudpods/shared/ids";
import { notifyTenant } from "../notifications/notify-tenant.ts";
import type { Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { AccruedMonth } from "../rating/cost-parts.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { exhaustedNews, thresholdNews, type BudgetStanding } from "./budget-news.ts";
import { readBudget, type Budget } from "./budget.ts";
import { decideBudget } from "./decide-budget.ts";
import type { SpentMonth } from "./ended-month.ts";

/** What became of one tenant's budget. */
export interface Judgement {
  /** Thresholds that were alerted now. */
  readonly alerted: readonly number[];
  readonly stopPods: boolean;
}

/**
 * Judges what a tenant has accrued against his budget: alerts with their messages, and whether pods may run, in one
 * transaction. Each alert is given by the constraint alone, and figures that are older than those by which pods were
 * last stopped or given back change nothing about that, so that any number of evaluators may do this at once.
 * @returns undefined when the tenant has no budget
 */
export async function judgeTenant(
  tx: Transaction,
  tenantId: string,
  accrued: AccruedMonth,
): Promise<Judgement | undefined> {
  const budget = await readBudget(tx, tenantId, true);
  if (budget === undefined) return undefined;
  const verdict = decideBudget(budget, accrued.total);
  const alerted = await alertReached(tx, budget, accrued);
  const standing = { yearMonth: accrued.yearMonth, spend: accrued.total, percentUsed: verdict.percentUsed };
  if (budget.exhaustionJudgedAt !== null && accrued.at < budget.exhaustionJudgedAt)
    return { alerted, stopPods: budget.exhaustedMonth !== null };
  await markExhausted(tx, budget, standing, { at: accrued.at, stopPods: verdict.stopPods });
  return { alerted, stopPods: verdict.stopPods };
}

/** Only the alerts of `judgeTenant`. @returns the thresholds that were alerted now */
export async function alertTenant(tx: Transaction, tenantId: string, spent: SpentMonth): Promise<readonly number[]> {
  const budget = await readBudget(tx, tenantId, true);
  return budget === undefined ? [] : await alertReached(tx, budget, spent);
}

async function alertReached(tx: Transaction, budget: Budget, spent: SpentMonth): Promise<number[]> {
  const { reached, percentUsed } = decideBudget(budget, spent.total);
  const standing = { yearMonth: spent.yearMonth, spend: spent.total, percentUsed };
  const alerted: number[] = [];
  for (const threshold of reached) {
    if (await alert(tx, budget, standing, threshold)) alerted.push(threshold);
  }
  return alerted;
}

async function alert(tx: Queryable, budget: Budget, standing: BudgetStanding, threshold: number): Promise<boolean> {
  const id = newId();
  const added = await tx.execute(sql`
    INSERT INTO cloud_pod_budget_alerts
      (id, tenant_id, year_month, threshold, current_spend_amount, budget_limit_amount, currency, percent_used)
    VALUES (${id}, ${budget.tenantId}, ${standing.yearMonth}, ${threshold}, ${standing.spend.toString()}, ${budget.limit.toString()},
      ${budget.limit.currency}, ${standing.percentUsed})
    ON CONFLICT DO NOTHING`);
  if (added === 0) return false;
  const channels = await notifyTenant(tx, thresholdNews(budget, standing, threshold));
  await tx.execute(sql`UPDATE cloud_pod_budget_alerts SET notified_via = ${channels} WHERE id = ${id}`);
  return true;
}

async function markExhausted(
  tx: Transaction,
  budget: Budget,
  standing: BudgetStanding,
  { at, stopPods }: { readonly at: Date; readonly stopPods: boolean },
): Promise<void> {
  const month = stopPods ? standing.yearMonth : null;
  if (budget.exhaustedMonth === month) return;
  await tx.execute(
    sql`UPDATE cloud_pod_budgets SET exhausted_month = ${month}, exhaustion_judged_at = least(${at}, now()) WHERE tenant_id = ${budget.tenantId}`,
  );
  await recordAudit(tx, {
    actor: systemActor("budgets"),
    requestId: undefined,
    tenantId: budget.tenantId,
    action: stopPods ? "budget.exhausted" : "budget.restored",
    targetType: "tenant",
    targetId: budget.tenantId,
    detail: { yearMonth: standing.yearMonth, spend: standing.spend.toString(), limit: budget.limit.toString() },
  });
  if (stopPods) await notifyTenant(tx, exhaustedNews(budget, standing));
}
