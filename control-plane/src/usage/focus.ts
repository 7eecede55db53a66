import { csvNumber, type CsvCell } from "./csv.ts";
import { decimalQuotient, gibibyte, hourMs } from "./exact-decimal.ts";
import type { UsageMonth } from "./usage-month.ts";

/** Who is billed, the same in every row. */
export interface FocusAccount {
  readonly tenantId: string;
  readonly tenantName: string;
  readonly month: UsageMonth;
}

/** What one pod was charged in one day or month (UTC). Costs are decimals of ten places. */
export interface ChargedPeriod {
  readonly podId: string;
  readonly podName: string;
  readonly region: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly start: Date;
  readonly end: Date;
  readonly currency: string;
  /** How long the pod existed. */
  readonly existenceMs: bigint;
  readonly coreMs: bigint;
  readonly memoryMbMs: bigint;
  readonly diskGbMs: bigint;
  readonly billableInBytes: bigint;
  readonly billableOutBytes: bigint;
  readonly overageBytes: bigint;
  readonly costCpu: string;
  readonly costMemory: string;
  readonly costDisk: string;
  readonly costNetworkIn: string;
  readonly costNetworkOut: string;
  readonly costPlan: string;
  readonly costOverage: string;
  /** Part of the costs that came after the month was closed, which a later month bills. */
  readonly costLate: string;
}

/** One charge of a period. */
interface Charge {
  readonly sku: string;
  readonly description: string;
  readonly category: "Usage" | "Purchase" | "Adjustment";
  readonly service: "Compute" | "Storage" | "Networking";
  readonly cost: string;
  /** In the unit that the price is of; undefined for an adjustment. */
  readonly priced: { readonly quantity: string; readonly unit: string } | undefined;
  /** As consumed; undefined for what is not metered. */
  readonly consumed: { readonly quantity: string; readonly unit: string } | undefined;
}

/**
 * Columns of FOCUS 1.0 (FinOps Open Cost and Usage Specification, focus.finops.org), in alphabetical order: the mandatory ones and those
 * that this provider has something to say in. Unit prices are left out: a day can have several.
 */
export const focusColumns = [
  "BilledCost",
  "BillingAccountId",
  "BillingAccountName",
  "BillingCurrency",
  "BillingPeriodEnd",
  "BillingPeriodStart",
  "ChargeCategory",
  "ChargeClass",
  "ChargeDescription",
  "ChargeFrequency",
  "ChargePeriodEnd",
  "ChargePeriodStart",
  "ConsumedQuantity",
  "ConsumedUnit",
  "ContractedCost",
  "EffectiveCost",
  "InvoiceIssuerName",
  "ListCost",
  "PricingCategory",
  "PricingQuantity",
  "PricingUnit",
  "ProviderName",
  "PublisherName",
  "RegionId",
  "RegionName",
  "ResourceId",
  "ResourceName",
  "ResourceType",
  "ServiceCategory",
  "ServiceName",
  "SkuId",
  "Tags",
] as const;

const provider = "CloudPods";
/** Quantities that do not end have as many places as amounts. */
const places = 10;

/**
 * The charges of a period as rows under `focusColumns`: one for each part that cost something, and one where nothing did, so that what was free
 * is seen too. Their costs sum to what the period is billed.
 */
export function focusRows(account: FocusAccount, period: ChargedPeriod): CsvCell[][] {
  const all = chargesOf(period, BigInt(account.month.end.getTime() - account.month.start.getTime()));
  const paid = all.filter(({ cost }) => !isZero(cost));
  const shown = paid.length > 0 ? paid : all.filter(({ sku }) => sku === "plan" && period.existenceMs > 0n);
  return shown.map((charge) => rowOf(account, period, charge));
}

function chargesOf(period: ChargedPeriod, monthMs: bigint): Charge[] {
  const { existenceMs, coreMs, memoryMbMs, diskGbMs } = period;
  const usage = (quantity: string, unit: string) => ({ priced: { quantity, unit }, consumed: { quantity, unit } });
  const traffic = (bytes: bigint) => usage(decimalQuotient(bytes, gibibyte, places), "GiB");
  const base = { category: "Usage" } as const;
  return [
    {
      ...base,
      ...usage(decimalQuotient(coreMs, hourMs, places), "vCPU-Hours"),
      sku: "cpu",
      description: "Processor cores while the pod ran",
      service: "Compute",
      cost: period.costCpu,
    },
    {
      ...base,
      ...usage(decimalQuotient(memoryMbMs, 1_024n * hourMs, places), "GiB-Hours"),
      sku: "memory",
      description: "Memory while the pod ran",
      service: "Compute",
      cost: period.costMemory,
    },
    {
      ...base,
      sku: "disk",
      description: "Disk space while the pod existed",
      service: "Storage",
      cost: period.costDisk,
      priced: { quantity: decimalQuotient(diskGbMs, monthMs, places), unit: "GiB-Months" },
      consumed: { quantity: decimalQuotient(diskGbMs, hourMs, places), unit: "GiB-Hours" },
    },
    {
      ...base,
      ...traffic(period.billableInBytes),
      sku: "network-in",
      description: "Traffic to the pod",
      service: "Networking",
      cost: period.costNetworkIn,
    },
    {
      ...base,
      ...traffic(period.billableOutBytes),
      sku: "network-out",
      description: "Traffic from the pod",
      service: "Networking",
      cost: period.costNetworkOut,
    },
    {
      ...base,
      ...traffic(period.overageBytes),
      sku: "plan-overage",
      description: "Traffic beyond the plan's allowance of the month",
      service: "Networking",
      cost: period.costOverage,
    },
    {
      sku: "plan",
      description: "Plan, for the time that the pod existed",
      category: "Purchase",
      service: "Compute",
      cost: period.costPlan,
      priced: { quantity: decimalQuotient(existenceMs, monthMs, places), unit: "Months" },
      consumed: undefined,
    },
    {
      sku: "late-usage",
      description: "Usage that came after the month was closed and is billed with a later one",
      category: "Adjustment",
      service: "Compute",
      cost: negated(period.costLate),
      priced: undefined,
      consumed: undefined,
    },
  ];
}

function rowOf({ tenantId, tenantName, month }: FocusAccount, period: ChargedPeriod, charge: Charge): CsvCell[] {
  const cost = csvNumber(charge.cost);
  const cells: Record<(typeof focusColumns)[number], CsvCell> = {
    BilledCost: cost,
    BillingAccountId: tenantId,
    BillingAccountName: tenantName,
    BillingCurrency: period.currency,
    BillingPeriodEnd: instant(month.end),
    BillingPeriodStart: instant(month.start),
    ChargeCategory: charge.category,
    ChargeClass: null,
    ChargeDescription: charge.description,
    ChargeFrequency:
      charge.category === "Usage" ? "Usage-Based" : charge.category === "Purchase" ? "Recurring" : "One-Time",
    ChargePeriodEnd: instant(period.end),
    ChargePeriodStart: instant(period.start),
    ConsumedQuantity: quantityOf(charge.consumed),
    ConsumedUnit: charge.consumed?.unit ?? null,
    ContractedCost: cost,
    EffectiveCost: cost,
    InvoiceIssuerName: provider,
    ListCost: cost,
    PricingCategory: charge.priced === undefined ? null : "Standard",
    PricingQuantity: quantityOf(charge.priced),
    PricingUnit: charge.priced?.unit ?? null,
    ProviderName: provider,
    PublisherName: provider,
    RegionId: period.region,
    RegionName: period.region,
    ResourceId: period.podId,
    ResourceName: period.podName,
    ResourceType: "Pod",
    ServiceCategory: charge.service,
    ServiceName: provider,
    SkuId: charge.sku,
    Tags: JSON.stringify(period.labels),
  };
  return focusColumns.map((column) => cells[column]);
}

function quantityOf(of: Charge["priced"]): CsvCell {
  return of === undefined ? null : csvNumber(of.quantity);
}

/** RFC 3339 in UTC without fractions, as FOCUS asks. */
function instant(at: Date): string {
  return `${at.toISOString().slice(0, 19)}Z`;
}

function isZero(cost: string): boolean {
  return /^-?[0.]+$/.test(cost);
}

function negated(cost: string): string {
  if (isZero(cost)) return cost;
  return cost.startsWith("-") ? cost.slice(1) : `-${cost}`;
}
