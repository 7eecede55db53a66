import type { Money } from "@cloudpods/shared/money";
import type { TenantNews } from "../notifications/notify-tenant.ts";
import type { Budget } from "./budget.ts";

/** Where a budget stands. */
export interface BudgetStanding {
  readonly yearMonth: string;
  readonly spend: Money;
  readonly percentUsed: string;
}

/** News of a threshold that is reached. */
export function thresholdNews(budget: Budget, standing: BudgetStanding, threshold: number): TenantNews {
  const { spend, limit } = amountsOf(budget, standing);
  return {
    ...addresseesOf(budget),
    dedupeKey: `budget:${standing.yearMonth}:${threshold}`,
    email: {
      subject: `Your budget for ${standing.yearMonth} has reached ${threshold} %`,
      text: `You have spent ${spend} of ${limit} in ${standing.yearMonth} (UTC), that is ${standing.percentUsed} %.\n`,
    },
    webhook: { event: "budget.threshold_crossed", data: { ...dataOf(budget, standing), threshold } },
  };
}

/** News that pods are stopped because the hard limit is reached. */
export function exhaustedNews(budget: Budget, standing: BudgetStanding): TenantNews {
  const { spend, limit } = amountsOf(budget, standing);
  return {
    ...addresseesOf(budget),
    // Raised and reached again in the same month is another occasion.
    dedupeKey: `budget-exhausted:${standing.yearMonth}:${budget.version}`,
    email: {
      subject: `Your budget for ${standing.yearMonth} is spent: your pods are being stopped`,
      text:
        `You have spent ${spend} of ${limit} in ${standing.yearMonth} (UTC), and your budget says that pods stop then.\n` +
        "They start again by themselves when you raise the budget or when the month turns. Disks and plans are paid for meanwhile.\n",
    },
    webhook: { event: "budget.exhausted", data: dataOf(budget, standing) },
  };
}

function addresseesOf(budget: Budget): Pick<TenantNews, "tenantId" | "emails" | "webhookUrl"> {
  return { tenantId: budget.tenantId, emails: budget.emails, webhookUrl: budget.webhookUrl };
}

function amountsOf({ limit }: Budget, { spend }: BudgetStanding): { spend: string; limit: string } {
  return { spend: `${spend.rounded().toString()} ${spend.currency}`, limit: `${limit.toString()} ${limit.currency}` };
}

function dataOf({ limit }: Budget, { yearMonth, spend, percentUsed }: BudgetStanding): Record<string, unknown> {
  return {
    yearMonth,
    currentSpend: spend.rounded().toString(),
    budgetLimit: limit.toString(),
    currency: limit.currency,
    percentUsed,
  };
}
