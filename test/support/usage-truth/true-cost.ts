import { amountOf, share } from "./amounts.ts";
import { common, timeWithin, without } from "./spans.ts";
import { at, type Allocation, type PodStory, type PriceVersion, type Span, type Story } from "./story.ts";
import { hourMs, type HourUsage } from "./true-usage.ts";

const gigabyte = 2n ** 30n;

/** What a pod costs in an hour, amounts of 10^-10, and what it is charged for. */
export interface HourCost {
  readonly hourMs: number;
  cpu: bigint;
  memory: bigint;
  disk: bigint;
  networkIn: bigint;
  networkOut: bigint;
  plan: bigint;
  coreMs: bigint;
  memoryMbMs: bigint;
  diskGbMs: bigint;
  billableIn: bigint;
  billableOut: bigint;
  planOut: bigint;
  /** Gigabytes of the plan that holds at the end, where going beyond them is charged. */
  allowanceGb: number | undefined;
  existedMs: number;
  /** Of its existence, the time in which it did not run. */
  absentMs: number;
}

/** A stretch of an hour in which everything that decides about money is the same. */
interface Stretch extends Span {
  readonly allocation: Allocation;
  readonly list: PriceVersion | undefined;
  readonly plan: (Span & { readonly amount: string }) | undefined;
}

/** What a pod costs in an hour in which it exists; its usage of the hour may be undefined. */
export function costOf(story: Story, pod: PodStory, startMs: number, usage: HourUsage | undefined): HourCost {
  const cost: HourCost = emptyCost(startMs);
  const hour = { fromMs: startMs, toMs: startMs + hourMs };
  const away = awayOf(story, pod);
  const stretches = stretchesOf(story, pod, hour);
  for (const stretch of stretches) {
    addStretch(cost, stretch, usage, away);
    cost.existedMs += stretch.toMs - stretch.fromMs;
    cost.absentMs += stretch.toMs - stretch.fromMs - timeWithin(usage?.ran ?? [], stretch);
  }
  const planCode = stretches.at(-1)?.allocation.planCode;
  const plan = story.plans.find(({ code }) => code === planCode);
  cost.allowanceGb = plan?.overage === "charge" ? plan.bandwidthGb : undefined;
  return cost;
}

function addStretch(cost: HourCost, stretch: Stretch, usage: HourUsage | undefined, away: readonly Span[]): void {
  const { allocation, list, plan } = stretch;
  const ranMs = BigInt(timeWithin(usage?.ran ?? [], stretch));
  const stays = without(stretch, away);
  const traffic = (usage?.traffic ?? []).filter(({ atMs }) => atMs > stretch.fromMs && atMs <= stretch.toMs);
  const bytesIn = traffic.reduce((sum, one) => sum + one.in, 0n);
  const bytesOut = traffic.reduce((sum, one) => sum + one.out, 0n);
  const coreMs = ranMs * BigInt(allocation.cores);
  const memoryMbMs = ranMs * BigInt(allocation.memoryMb);
  cost.coreMs += coreMs;
  cost.memoryMbMs += memoryMbMs;
  cost.diskGbMs += BigInt(timeWithin(stays, stretch)) * BigInt(allocation.diskGb);
  cost.billableIn += bytesIn;
  cost.billableOut += bytesOut;
  if (list !== undefined) {
    cost.cpu += share(amountOf(list.cpuPerHour), coreMs, BigInt(hourMs));
    cost.memory += share(amountOf(list.memoryGbPerHour), memoryMbMs, 1024n * BigInt(hourMs));
    if (!list.networkInFree) cost.networkIn += share(amountOf(list.networkInGb), bytesIn, gigabyte);
    cost.networkOut += share(amountOf(list.networkOutGb), bytesOut, gigabyte);
    const anchorMs = Math.max(allocation.fromMs, list.fromMs);
    cost.disk += accrued(list.diskGbPerMonth, BigInt(allocation.diskGb), anchorMs, stays);
  }
  if (plan !== undefined) {
    cost.planOut += bytesOut;
    cost.plan += accrued(plan.amount, 1n, Math.max(allocation.fromMs, plan.fromMs), stays);
  }
}

/** A monthly price for some stays: each is c(end) - c(start), so that they sum to the month without a rest. */
function accrued(price: string, quantity: bigint, anchorMs: number, stays: readonly Span[]): bigint {
  return stays.reduce((sum, stay) => {
    const month = monthOf(stay.fromMs);
    const sinceMs = Math.max(anchorMs, month.fromMs);
    const upTo = (atMs: number): bigint =>
      share(amountOf(price), quantity * BigInt(atMs - sinceMs), BigInt(month.toMs - month.fromMs));
    return sum + upTo(stay.toMs) - upTo(stay.fromMs);
  }, 0n);
}

/** The UTC month of an instant. */
function monthOf(atMs: number): Span {
  const date = new Date(atMs);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  return { fromMs: Date.UTC(year, month), toMs: Date.UTC(year, month + 1) };
}

/** When nothing accrues, because the pod's host could not be reached for more than an hour. */
function awayOf(story: Story, pod: PodStory): Span[] {
  return pod.stays.flatMap((stay) => {
    const offline = story.hosts[stay.host]?.offline ?? [];
    return offline.flatMap(({ fromMs, toMs }) => common({ fromMs: fromMs + hourMs, toMs }, stay) ?? []);
  });
}

/** The price list that a tenant pays by at an instant: the one that it names, else its currency's default. */
function priceListAt(story: Story, pod: PodStory, atMs: number): PriceVersion | undefined {
  const tenant = story.tenants[pod.tenant];
  const ofCurrency = story.priceLists.filter((list) => list.currency === tenant?.currency);
  const named = ofCurrency.filter((list) => list.name === tenant?.pricingName);
  return (
    at(named, atMs) ??
    at(
      ofCurrency.filter((list) => list.isDefault),
      atMs,
    )
  );
}

function stretchesOf(story: Story, pod: PodStory, hour: Span): Stretch[] {
  const currency = story.tenants[pod.tenant]?.currency;
  const edges = [...pod.allocations, ...story.priceLists, ...story.plans.flatMap((plan) => plan.prices)];
  const isInside = (atMs: number): boolean => atMs > hour.fromMs && atMs < hour.toMs;
  const cuts = edges.flatMap(({ fromMs, toMs }) => [fromMs, toMs].filter(isInside));
  const inside = [...new Set([hour.fromMs, hour.toMs, ...cuts])].toSorted((a, b) => a - b);
  const stretches: Stretch[] = [];
  inside.slice(0, -1).forEach((fromMs, index) => {
    const toMs = inside[index + 1] ?? hour.toMs;
    const allocation = at(pod.allocations, fromMs);
    if (allocation === undefined) return;
    const plan = story.plans.find(({ code }) => code === allocation.planCode);
    const prices = plan?.prices.filter((price) => price.currency === currency) ?? [];
    const rates = {
      allocation,
      list: plan === undefined ? priceListAt(story, pod, fromMs) : undefined,
      plan: at(prices, fromMs),
    };
    const last = stretches.at(-1);
    // A cut that changes nothing for this pod is none.
    const goesOn =
      last?.toMs === fromMs &&
      last.allocation === rates.allocation &&
      last.list === rates.list &&
      last.plan === rates.plan;
    if (goesOn) stretches[stretches.length - 1] = { ...last, toMs };
    else stretches.push({ fromMs, toMs, ...rates });
  });
  return stretches;
}

function emptyCost(startMs: number): HourCost {
  return {
    hourMs: startMs,
    cpu: 0n,
    memory: 0n,
    disk: 0n,
    networkIn: 0n,
    networkOut: 0n,
    plan: 0n,
    coreMs: 0n,
    memoryMbMs: 0n,
    diskGbMs: 0n,
    billableIn: 0n,
    billableOut: 0n,
    planOut: 0n,
    allowanceGb: undefined,
    existedMs: 0,
    absentMs: 0,
  };
}

/** What going beyond a plan's gigabytes costs in a month, by all hours of it in their order. Only plans that charge count. */
export function overageOf(
  story: Story,
  pod: PodStory,
  hours: readonly HourCost[],
): { readonly bytes: bigint; readonly cost: bigint } {
  const beyond = new Map<string, bigint>();
  let usedUp = 0n;
  for (const hour of hours) {
    if (hour.allowanceGb === undefined) continue;
    const before = usedUp;
    usedUp += hour.planOut;
    const allowance = BigInt(hour.allowanceGb) * gigabyte;
    const over = (used: bigint): bigint => (used > allowance ? used - allowance : 0n);
    const bytes = over(usedUp) - over(before);
    const price = priceListAt(story, pod, hour.hourMs)?.networkOutGb ?? "0";
    if (bytes > 0n) beyond.set(price, (beyond.get(price) ?? 0n) + bytes);
  }
  const parts = [...beyond];
  return {
    bytes: parts.reduce((sum, [, bytes]) => sum + bytes, 0n),
    cost: parts.reduce((sum, [price, bytes]) => sum + share(amountOf(price), bytes, gigabyte), 0n),
  };
}
