import { Money } from "@cloudpods/shared/money";
import fc from "fast-check";
import { expect, test } from "vitest";
import { burnRatePerHour, decideBudget, worstCaseOvershoot, type BudgetLimits } from "./decide-budget.ts";

const usd = (amount: string) => Money.of(amount, "USD");
const fromUnits = (units: bigint) => {
  const digits = String(units).padStart(11, "0");
  return usd(`${digits.slice(0, -10)}.${digits.slice(-10)}`);
};
const amount = fc.bigInt({ min: 0n, max: 10n ** 16n });
const budget = fc.record({
  limit: fc.bigInt({ min: 1n, max: 10n ** 15n }),
  thresholds: fc.uniqueArray(fc.integer({ min: 1, max: 300 }), { minLength: 3, maxLength: 3 }),
  hardLimitEnabled: fc.boolean(),
  hardLimitAction: fc.constantFrom("notify_only" as const, "stop_pods" as const),
});
const limitsOf = (wish: { limit: bigint } & Omit<BudgetLimits, "limit">): BudgetLimits => ({
  ...wish,
  limit: fromUnits(wish.limit),
  thresholds: wish.thresholds.toSorted((a, b) => a - b),
});

test.each([
  ["4.9999999999", [], "49.9"],
  ["5", [50], "50.0"],
  ["7.99", [50], "79.9"],
  ["8.00", [50, 80], "80.0"],
  ["9.9999999999", [50, 80], "99.9"],
  ["10", [50, 80, 100], "100.0"],
  ["12.34", [50, 80, 100], "123.4"],
])("of 10 USD %s reaches %j", (spend, reached, percentUsed) => {
  const limits = { limit: usd("10"), thresholds: [50, 80, 100], hardLimitEnabled: true } as const;
  const stopPods = reached.includes(100);
  expect(decideBudget({ ...limits, hardLimitAction: "stop_pods" }, usd(spend))).toEqual({
    percentUsed,
    reached,
    stopPods,
  });
  expect(decideBudget({ ...limits, hardLimitAction: "notify_only" }, usd(spend)).stopPods).toBe(false);
});

test("thresholds are reached exactly at their amount, compared in whole units", () => {
  fc.assert(
    fc.property(budget, amount, (wish, spend) => {
      const { reached } = decideBudget(limitsOf(wish), fromUnits(spend));
      const told = wish.hardLimitEnabled ? [...wish.thresholds, 100] : wish.thresholds;
      const expected = told.filter((percent) => spend * 100n >= wish.limit * BigInt(percent));
      expect(reached).toEqual([...new Set(expected)].toSorted((a, b) => a - b));
    }),
  );
});

test("who only wants to be told of his limit is told at the limit, wherever his thresholds are", () => {
  const limits = { limit: usd("10"), thresholds: [20, 60, 150], hardLimitAction: "notify_only" } as const;
  expect(decideBudget({ ...limits, hardLimitEnabled: true }, usd("10")).reached).toEqual([20, 60, 100]);
  expect(decideBudget({ ...limits, hardLimitEnabled: false }, usd("10")).reached).toEqual([20, 60]);
});

test("more spend never reaches less, more budget never reaches more", () => {
  fc.assert(
    fc.property(budget, amount, amount, (wish, spend, more) => {
      const less = decideBudget(limitsOf(wish), fromUnits(spend));
      const after = decideBudget(limitsOf(wish), fromUnits(spend + more));
      expect(after.reached).toEqual(expect.arrayContaining([...less.reached]));
      if (less.stopPods) expect(after.stopPods).toBe(true);
      const raised = decideBudget(limitsOf({ ...wish, limit: wish.limit + more }), fromUnits(spend));
      expect(less.reached).toEqual(expect.arrayContaining([...raised.reached]));
      if (raised.stopPods) expect(less.stopPods).toBe(true);
    }),
  );
});

test("pods are stopped if and only if the limit is reached and shall stop them", () => {
  fc.assert(
    fc.property(budget, amount, (wish, spend) => {
      const wanted = wish.hardLimitEnabled && wish.hardLimitAction === "stop_pods" && spend >= wish.limit;
      expect(decideBudget(limitsOf(wish), fromUnits(spend)).stopPods).toBe(wanted);
    }),
  );
});

test("the pace times its time is what was spent, rounded up by less than a unit per hour", () => {
  fc.assert(
    fc.property(amount, amount, fc.integer({ min: 60_000, max: 7_200_000 }), (before, spent, elapsedMs) => {
      const rate = burnRatePerHour(fromUnits(before), fromUnits(before + spent), elapsedMs);
      const exact = fromUnits(spent).times(3_600_000n);
      expect(rate.times(BigInt(elapsedMs)).compare(exact)).toBeGreaterThanOrEqual(0);
      expect(rate.minus(usd("0.0000000001")).times(BigInt(elapsedMs)).compare(exact)).toBe(-1);
    }),
  );
  expect(burnRatePerHour(usd("5"), usd("4"), 3_600_000).isZero()).toBe(true);
  expect(burnRatePerHour(usd("0"), usd("4"), 1_000).isZero()).toBe(true);
});

test("the overshoot is the pace for as long as nobody looks", () => {
  expect(worstCaseOvershoot(usd("36"), 240).toString()).toBe("2.40");
  expect(worstCaseOvershoot(usd("0"), 240).isZero()).toBe(true);
});

test("amounts of two currencies are not compared", () => {
  const limits = { limit: usd("10"), thresholds: [50], hardLimitEnabled: true, hardLimitAction: "stop_pods" } as const;
  expect(() => decideBudget(limits, Money.of("5", "EUR"))).toThrow(RangeError);
});
