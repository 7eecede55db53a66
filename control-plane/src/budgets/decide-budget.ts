import { Money } from "@cloudpods/shared/money";

/** What a tenant means to spend in a month (UTC). */
export interface BudgetLimits {
  readonly limit: Money;
  /** Percent of the limit, rising. */
  readonly thresholds: readonly number[];
  readonly hardLimitEnabled: boolean;
  readonly hardLimitAction: "notify_only" | "stop_pods";
}

/** What a spend means for a budget. */
export interface BudgetVerdict {
  /** With one place, rounded down: 100.0 is never shown before the limit is reached. */
  readonly percentUsed: string;
  /** Thresholds that are reached, whether told already or not; a hard limit is one too, at 100. */
  readonly reached: readonly number[];
  /** Whether the tenant's pods must not run. */
  readonly stopPods: boolean;
}

/** Decimal places of the amounts that are compared; accrued costs have ten. */
const places = 20;

/**
 * Judges a spend, exactly: a threshold is reached at its very amount. The hard limit is the limit itself, whatever
 * the thresholds are.
 * @throws RangeError when limit and spend are of different currencies
 */
export function decideBudget(budget: BudgetLimits, spend: Money): BudgetVerdict {
  const stopPods =
    budget.hardLimitEnabled && budget.hardLimitAction === "stop_pods" && spend.compare(budget.limit) >= 0;
  // Whoever only wants to be told of his limit is told of it, wherever his thresholds are.
  const thresholds = budget.hardLimitEnabled ? [...new Set([...budget.thresholds, 100])] : budget.thresholds;
  const reached = thresholds
    .filter((percent) => spend.times(100n).compare(budget.limit.times(BigInt(percent))) >= 0)
    .toSorted((a, b) => a - b);
  const tenths = (unitsOf(spend) * 1_000n) / unitsOf(budget.limit);
  return { percentUsed: `${tenths / 10n}.${tenths % 10n}`, reached, stopPods };
}

/**
 * How much an hour costs at the pace of the last `elapsedMs`; zero when nothing can be said yet. Amounts that
 * went down (a repaired hour) are no negative pace.
 */
export function burnRatePerHour(before: Money, now: Money, elapsedMs: number): Money {
  const spent = now.minus(before);
  if (elapsedMs < 60_000 || spent.compare(Money.zero(now.currency)) <= 0) return Money.zero(now.currency);
  return scaled(spent, 3_600_000n, BigInt(Math.round(elapsedMs)));
}

/** What is spent beyond a limit when its crossing is acted upon `delaySeconds` late. */
export function worstCaseOvershoot(perHour: Money, delaySeconds: number): Money {
  return scaled(perHour, BigInt(delaySeconds), 3_600n);
}

/** Ten places, rounded up: an estimate of the worst case must not be too small. */
function scaled(amount: Money, numerator: bigint, denominator: bigint): Money {
  const divisor = denominator * 10n ** BigInt(places - 10);
  const units = (unitsOf(amount) * numerator + divisor - 1n) / divisor;
  const digits = String(units).padStart(11, "0");
  return Money.of(`${digits.slice(0, -10)}.${digits.slice(-10)}`, amount.currency);
}

function unitsOf(amount: Money): bigint {
  const [whole = "0", fraction = ""] = amount.toString().split(".");
  return BigInt(whole + fraction.padEnd(places, "0").slice(0, places));
}
