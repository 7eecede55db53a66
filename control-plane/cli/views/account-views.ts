import type { AnswerOf } from "../api/endpoints.ts";
import { formatMb } from "../terminal/format.ts";
import { renderFields, renderTable } from "../terminal/table.ts";

/** A table of plans. */
export function renderPlans(plans: AnswerOf<"listPlans">["data"]): string {
  return renderTable(
    [
      { name: "code", value: ({ code }) => code },
      { name: "name", value: ({ name }) => name },
      { name: "family", value: ({ family }) => family },
      { name: "cores", value: ({ cores }) => cores },
      { name: "memory", value: ({ memoryMb }) => formatMb(memoryMb) },
      { name: "disk", value: ({ diskGb }) => `${diskGb} GB` },
      { name: "traffic", value: ({ bandwidthGb }) => (bandwidthGb === null ? "unlimited" : `${bandwidthGb} GB`) },
      {
        name: "month",
        value: ({ prices }) => prices.map(({ amount, currency }) => `${amount} ${currency}`).join(", "),
      },
    ],
    plans,
  );
}

/** A table of tenants. */
export function renderTenants(tenants: AnswerOf<"listTenants">["data"]): string {
  return renderTable(
    [
      { name: "slug", value: ({ slug }) => slug },
      { name: "name", value: ({ name }) => name },
      { name: "status", value: ({ status }) => status },
      { name: "id", value: ({ id }) => id },
    ],
    tenants,
  );
}

/** Limits and use. */
export function renderQuota({ source, limits, usage }: AnswerOf<"showQuota">): string {
  const rows = [
    { name: "pods", used: String(usage.pods), limit: String(limits.pods) },
    { name: "cores", used: String(usage.cpuCores), limit: String(limits.cpuCores) },
    { name: "memory", used: formatMb(usage.memoryMb), limit: formatMb(limits.memoryMb) },
    { name: "disk", used: `${usage.diskGb} GB`, limit: `${limits.diskGb} GB` },
  ];
  const table = renderTable(
    [
      { name: "quota", value: ({ name }) => name },
      { name: "used", value: ({ used }) => used },
      { name: "limit", value: ({ limit }) => limit },
    ],
    rows,
  );
  return `${table}\n${source === "default" ? "These are the default limits." : "These limits were set for the tenant."}`;
}

/** The month so far, dearest pods first. */
export function renderUsage(usage: AnswerOf<"showUsage">): string {
  const { amount, currency } = usage.totalCost;
  const standing = usage.budget === null ? "" : `, ${usage.budget.percentUsed} % of the budget`;
  const total =
    `${usage.yearMonth} (UTC): ${amount} ${currency} so far${standing}; ` +
    `${usage.totalUptimeHours} hours up, ${usage.totalNetworkOutGb} GB sent`;
  const table = renderTable(
    [
      { name: "pod", value: ({ podName }) => podName },
      { name: "cost", value: ({ totalCost }) => `${totalCost.amount} ${totalCost.currency}` },
      { name: "hours", value: ({ uptimeHours }) => uptimeHours },
      { name: "sent gb", value: ({ networkOutGb }) => networkOutGb },
      { name: "id", value: ({ podId }) => podId },
    ],
    usage.podBreakdown,
  );
  return `${total}\n\n${table}`;
}

/** A pod's days; an hour is in them some minutes after its end. */
export function renderPodUsage({ dailyUsage }: AnswerOf<"showPodUsage">): string {
  if (dailyUsage.length === 0)
    return "No hour of these days is added up yet; what the month costs so far: cloudpods usage";
  return renderTable(
    [
      { name: "day (utc)", value: ({ date }) => date },
      { name: "cpu %", value: ({ cpuAvgPercent }) => cpuAvgPercent },
      { name: "memory mb", value: ({ memoryAvgMb }) => memoryAvgMb },
      { name: "disk gb", value: ({ diskMaxGb }) => diskMaxGb },
      { name: "in gb", value: ({ networkInTotalGb }) => networkInTotalGb },
      { name: "out gb", value: ({ networkOutTotalGb }) => networkOutTotalGb },
      { name: "hours", value: ({ uptimeHours }) => uptimeHours },
      { name: "missing min", value: ({ minutes }) => minutes.missing },
      { name: "cost", value: ({ estimatedCost }) => `${estimatedCost.amount} ${estimatedCost.currency}` },
    ],
    dailyUsage,
  );
}

/** The budget and where it stands. */
export function renderBudget(budget: AnswerOf<"showBudget">): string {
  if (!budget.configured) return "There is no budget.";
  const { currency } = budget;
  return renderFields({
    month: `${budget.yearMonth} (UTC)`,
    spent: `${budget.currentSpend} of ${budget.monthlyLimit} ${currency} (${budget.percentUsed} %)`,
    "at this pace": `${budget.burnRatePerHour} ${currency} an hour`,
    alerts: `at ${budget.alertThreshold1}, ${budget.alertThreshold2} and ${budget.alertThreshold3} %`,
    "hard limit": hardLimitOf(budget),
    "beyond it at most": budget.hardLimitEnabled ? `${budget.worstCaseOvershoot} ${currency}` : undefined,
  });
}

function hardLimitOf({
  hardLimitEnabled,
  hardLimitAction,
  podsStopped,
}: Extract<AnswerOf<"showBudget">, { configured: true }>): string {
  if (!hardLimitEnabled) return "none";
  if (podsStopped) return "reached: pods are stopped and do not start";
  return hardLimitAction === "stop_pods" ? "stops pods" : "is only told";
}
