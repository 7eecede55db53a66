import type { Plan } from "./resolve-plan.ts";

/** One feature of all plans, in their order. Null: not limited. */
export interface ComparisonRow {
  readonly feature: string;
  readonly name: string;
  readonly unit: string | null;
  readonly values: readonly (string | number | boolean | null)[];
}

/** Features as rows, plans as columns. */
export interface PlanComparison {
  readonly plans: readonly { readonly code: string; readonly name: string; readonly family: Plan["family"] }[];
  readonly rows: readonly ComparisonRow[];
}

/** Compares plans. Prices and named features get a row each for every currency and feature that occurs. */
export function comparePlans(plans: readonly Plan[]): PlanComparison {
  const row = (
    feature: string,
    name: string,
    unit: string | null,
    value: (plan: Plan) => ComparisonRow["values"][number],
  ) => ({
    feature,
    name,
    unit,
    values: plans.map(value),
  });
  const currencies = distinct(plans.flatMap(({ prices }) => prices.map(({ currency }) => currency)));
  const features = distinct(plans.flatMap((plan) => plan.features));
  return {
    plans: plans.map(({ code, name, family }) => ({ code, name, family })),
    rows: [
      ...currencies.map((currency) =>
        row(
          "price",
          "Price per month",
          currency,
          ({ prices }) => prices.find((price) => price.currency === currency)?.amount ?? null,
        ),
      ),
      row("cores", "CPU cores", null, ({ cores }) => cores),
      row("memoryMb", "Memory", "MB", ({ memoryMb }) => memoryMb),
      row("diskGb", "Disk", "GB", ({ diskGb }) => diskGb),
      row("bandwidthGb", "Bandwidth per month", "GB", ({ bandwidthGb }) => bandwidthGb),
      row("websitesMax", "Websites", null, ({ websitesMax }) => websitesMax),
      row("emailsMax", "E-mail accounts", null, ({ emailsMax }) => emailsMax),
      row("maxPerTenant", "Pods per customer", null, ({ maxPerTenant }) => maxPerTenant),
      ...features.map((feature) => row(`feature:${feature}`, feature, null, (plan) => plan.features.includes(feature))),
    ],
  };
}

function distinct(values: readonly string[]): string[] {
  return [...new Set(values)];
}
