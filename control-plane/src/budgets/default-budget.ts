import { Money } from "@cloudpods/shared/money";
import type { Queryable } from "../platform/database.ts";
import { writeBudget } from "./budget.ts";

/**
 * What a new tenant's budget is until he sets his own: enough for the dearest plan, small enough that a mistake is
 * noticed. By currency, since the same number means nothing in another; without an entry there is no default.
 */
const defaultLimits: Readonly<Record<string, string>> = {
  USD: "100",
  EUR: "100",
  GBP: "100",
  CHF: "100",
  AUD: "150",
  CAD: "150",
  SGD: "150",
  INR: "8500",
  JPY: "15000",
  IDR: "1600000",
};

/** Gives a new tenant a budget that alerts at 50, 80 and 100 % and stops nothing. */
export async function createDefaultBudget(tx: Queryable, tenantId: string, currency: string): Promise<void> {
  const amount = defaultLimits[currency];
  if (amount === undefined) return;
  await writeBudget(tx, tenantId, {
    limit: Money.of(amount, currency),
    thresholds: [50, 80, 100],
    hardLimitEnabled: false,
    hardLimitAction: "notify_only",
    emails: [],
    webhookUrl: null,
  });
}
