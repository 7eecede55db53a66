import { z } from "@hono/zod-openapi";
import { decideBudget, type BudgetLimits } from "../budgets/decide-budget.ts";
import { money, shownMoney, timestamp, uuid } from "../http/fields.ts";
import type { AccruedMonth } from "../rating/cost-parts.ts";
import { decimalQuotient, gibibyte, hourMs } from "./exact-decimal.ts";
import { timezone, usdOf, usdText, yearMonth } from "./usage-fields.ts";

/** This month's usage of a tenant as `GET /usage/current` shows it. */
export const currentUsageView = z
  .object({
    yearMonth,
    timezone,
    at: timestamp,
    totalCost: money.openapi({ description: "Accrued so far, to the last place." }),
    totalCostUsd: usdText,
    totalUptimeHours: z.string().openapi({ example: "744.0" }),
    totalNetworkOutGb: z.string().openapi({ example: "12.50", description: "1 GB = 2^30 bytes" }),
    totalNetworkOutBytes: z.string().openapi({ example: "13421772800" }),
    podBreakdown: z.array(
      z.object({
        podId: uuid,
        podName: z.string(),
        totalCost: money,
        totalCostUsd: usdText,
        uptimeHours: z.number(),
        networkOutGb: z.number(),
      }),
    ),
    budget: z
      .object({ monthlyLimit: money, monthlyLimitUsd: usdText, percentUsed: z.string().openapi({ example: "41.7" }) })
      .nullable(),
  })
  .openapi("CurrentUsage");

/**
 * The month so far, dearest pods first. The pods' costs sum to the total exactly; the `…Usd` fields are rounded to what would
 * be paid. Budgets are judged by the same figures and the same rule that alerts are.
 */
export function currentUsage(month: AccruedMonth, budget: BudgetLimits | undefined): z.infer<typeof currentUsageView> {
  const uptimeMs = month.perPod.reduce((sum, pod) => sum + pod.uptimeMs, 0n);
  const outBytes = month.perPod.reduce((sum, pod) => sum + pod.guestOutBytes, 0n);
  return {
    yearMonth: month.yearMonth,
    timezone: "UTC",
    at: month.at,
    totalCost: shownMoney(month.total),
    ...usdOf("totalCostUsd", month.total),
    totalUptimeHours: decimalQuotient(uptimeMs, hourMs, 1),
    totalNetworkOutGb: decimalQuotient(outBytes, gibibyte, 2),
    totalNetworkOutBytes: outBytes.toString(),
    podBreakdown: month.perPod
      .toSorted((a, b) => b.total.compare(a.total))
      .map((pod) => ({
        podId: pod.podId,
        podName: pod.podName,
        totalCost: shownMoney(pod.total),
        ...usdOf("totalCostUsd", pod.total),
        uptimeHours: Number(decimalQuotient(pod.uptimeMs, hourMs, 2)),
        networkOutGb: Number(decimalQuotient(pod.guestOutBytes, gibibyte, 4)),
      })),
    budget: budget === undefined ? null : standing(month, budget),
  };
}

function standing(month: AccruedMonth, budget: BudgetLimits): z.infer<typeof currentUsageView>["budget"] {
  return {
    monthlyLimit: shownMoney(budget.limit),
    ...usdOf("monthlyLimitUsd", budget.limit),
    percentUsed: decideBudget(budget, month.total).percentUsed,
  };
}
