import { Money, currencyExponent } from "@cloudpods/shared/money";
import { forecastRest, intervalLevel } from "./forecast-rest.ts";

/** A pod that goes on to be charged. */
export interface ForecastPod {
  readonly podId: string;
  /** When it began to be charged. */
  readonly billableFrom: Date;
  /** What it cost this month so far in charges that vary. */
  readonly varying: Money;
}

/** What one pod cost on one complete UTC day in charges that vary. */
export interface VaryingDay {
  readonly podId: string;
  /** "2026-01-31" */
  readonly date: string;
  readonly amount: Money;
}

/** What a month's forecast is made of. */
export interface MonthFacts {
  readonly now: Date;
  readonly monthEnd: Date;
  /** Everything charged since the month began. */
  readonly accrued: Money;
  /** What will be charged until the month's end just because the pods exist: plans and disks. */
  readonly committedRest: Money;
  readonly pods: readonly ForecastPod[];
  /** Days of these pods, in any order; a day that is missing cost nothing. */
  readonly days: readonly VaryingDay[];
}

/** A month's spend at its end. */
export interface MonthForecast {
  readonly expected: Money;
  /** Undefined with fewer than a week of complete days. */
  readonly interval: { readonly lower: Money; readonly upper: Money; readonly level: number } | undefined;
  /** Complete days that the varying charges were judged by. */
  readonly daysObserved: number;
}

const dayMs = 86_400_000;

/**
 * Forecasts what a tenant will have spent when the month ends, if nothing more is ordered and nothing destroyed. What is accrued
 * and what is certain to follow (plans and disks) is added exactly; charges that vary (processor, memory, traffic) are
 * forecast from their daily sums of the last two months, see `forecastRest`. A pod that is younger than those days counts
 * before its first complete day with its own mean, so that an order is not mistaken for growth; one without any complete
 * day goes on as it began.
 */
export function forecastMonth(facts: MonthFacts): MonthForecast {
  const { accrued, committedRest, now, monthEnd } = facts;
  const remainingDays = Math.max(0, (monthEnd.getTime() - now.getTime()) / dayMs);
  const { sums, unseenPerDay } = dailySums(facts);
  const rest = forecastRest({ dailyAmounts: sums, remainingDays });
  const certain = accrued.plus(committedRest);
  const withRest = (amount: number): Money =>
    certain.plus(estimate(amount + unseenPerDay * remainingDays, accrued.currency)).rounded();
  return {
    expected: withRest(rest.expected),
    interval:
      rest.interval === undefined
        ? undefined
        : { lower: withRest(rest.interval.lower), upper: withRest(rest.interval.upper), level: intervalLevel },
    daysObserved: sums.length,
  };
}

/** Sums of all pods for each complete day since the first of any, and what pods without a complete day cost in a day. */
function dailySums({ now, pods, days }: MonthFacts): { sums: number[]; unseenPerDay: number } {
  const today = dayNumber(now);
  const seen = days.map(({ date }) => dayNumber(new Date(date))).filter((day) => day < today);
  const firstSeen = Math.min(today, ...seen);
  // A day of which there is no figure at all yet is not a day without cost.
  const end = seen.length === 0 ? firstSeen : Math.max(...seen) + 1;
  // The day on which a pod began was not a whole one.
  const firstDays = new Map(pods.map((pod) => [pod, Math.max(firstSeen, dayNumber(pod.billableFrom) + 1)]));
  const first = Math.min(end, ...firstDays.values());
  const amounts = new Map(
    days.map(({ podId, date, amount }) => [`${podId} ${dayNumber(new Date(date))}`, number(amount)]),
  );
  const sums = Array<number>(end - first).fill(0);
  let unseenPerDay = 0;
  for (const [pod, ownFirst] of firstDays) {
    const own = Array.from(
      { length: Math.max(0, end - ownFirst) },
      (_, index) => amounts.get(`${pod.podId} ${ownFirst + index}`) ?? 0,
    );
    if (own.length === 0) {
      unseenPerDay += perDaySinceStart(pod, now);
      continue;
    }
    const mean = own.reduce((sum, one) => sum + one, 0) / own.length;
    for (const index of sums.keys()) sums[index] = (sums[index] ?? 0) + (own[first + index - ownFirst] ?? mean);
  }
  return { sums, unseenPerDay };
}

/** What began today is judged by its hours, but not by minutes alone. */
function perDaySinceStart(pod: ForecastPod, now: Date): number {
  const monthStartMs = Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1);
  const sinceMs = now.getTime() - Math.max(monthStartMs, pod.billableFrom.getTime());
  return number(pod.varying) / (Math.max(sinceMs, dayMs / 24) / dayMs);
}

function dayNumber(at: Date): number {
  return Math.floor(at.getTime() / dayMs);
}

/** Only for estimating: what is owed never becomes a floating-point number. */
function number(amount: Money): number {
  return Number(amount.toString());
}

function estimate(amount: number, currency: string): Money {
  return Money.of(amount.toFixed(currencyExponent(currency) + 2), currency);
}
