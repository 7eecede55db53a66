import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { forecastRest, intervalDaysMin, intervalLevel, type RestForecast } from "./forecast-rest.ts";

/** A repeatable source of numbers in [0, 1) (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** How the charges of one kind of customer go from day to day, around a level of 1. */
type Customer = (days: number, random: () => number) => number[];

const customers: Readonly<Record<string, Customer>> = {
  "steady, within some percent": (days, random) => series(days, () => 1 + 0.03 * normal(random)),
  "busy and quiet days": (days, random) => series(days, () => Math.exp(0.3 * normal(random) - 0.045)),
  "quieter weekends": (days, random) => {
    const first = Math.floor(random() * 7);
    return series(days, (day) => ((day + first) % 7 < 2 ? 0.6 : 1) * (1 + 0.1 * normal(random)));
  },
  "a level that drifts": (days, random) => {
    let level = 0;
    return series(days, () => Math.exp((level += 0.03 * normal(random))) * (1 + 0.03 * normal(random)));
  },
  "rare large transfers": (days, random) =>
    series(days, () => 1 + 0.03 * normal(random) - (random() < 0.15 ? 2 * Math.log(1 - random()) : 0)),
  "a level that jumps now and then": (days, random) => {
    let level = 1;
    return series(days, () => {
      if (random() < 1 / 45) level *= 0.6 + random();
      return level * (1 + 0.05 * normal(random));
    });
  },
};

function series(days: number, amount: (day: number) => number): number[] {
  return Array.from({ length: days }, (_, day) => Math.max(0, amount(day)));
}

const monthsOfEach = 400;

/** Share of generated months whose real rest lies in the interval that was given on some day of theirs. */
function coverage(
  customer: Customer,
  forecast: (amounts: readonly number[], remaining: number) => RestForecast,
): number {
  const random = randomFrom(20_260_131);
  let covered = 0;
  for (let month = 0; month < monthsOfEach; month++) {
    const known = 14 + Math.floor(random() * 47);
    const monthDays = 28 + Math.floor(random() * 4);
    const remaining = 0.05 + random() * (monthDays - 1);
    const all = customer(known + Math.ceil(remaining), random);
    const coming = all.slice(known);
    const part = remaining - Math.floor(remaining);
    const real = coming.reduce((total, amount, day) => total + amount * (day === 0 ? part : 1), 0);
    const { interval } = forecast(all.slice(0, known), remaining);
    if (interval === undefined) throw new Error("no interval although the days suffice");
    if (interval.lower <= real && real <= interval.upper) covered++;
  }
  return covered / monthsOfEach;
}

const ours = (dailyAmounts: readonly number[], remainingDays: number) => forecastRest({ dailyAmounts, remainingDays });

describe("back-test on generated months", () => {
  test("the interval holds about as often as it says, over all customers", () => {
    const shares = Object.values(customers).map((customer) => coverage(customer, ours));
    const mean = shares.reduce((total, share) => total + share, 0) / shares.length;
    expect(mean).toBeGreaterThan(intervalLevel - 0.05);
    expect(mean).toBeLessThan(intervalLevel + 0.08);
  });

  test.each(Object.entries(customers))("%s: never far below what it says", (_, customer) => {
    expect(coverage(customer, ours)).toBeGreaterThan(intervalLevel - 0.12);
  });

  test("negative control: errors around one fixed mean fail customers whose level moves", () => {
    const naive = (amounts: readonly number[], remaining: number): RestForecast => {
      const mean = amounts.reduce((total, one) => total + one, 0) / amounts.length;
      const deviation = Math.sqrt(amounts.reduce((total, one) => total + (one - mean) ** 2, 0) / (amounts.length - 1));
      const [expected, reach] = [mean * remaining, 1.28 * deviation * Math.sqrt(remaining)];
      return { expected, interval: { lower: expected - reach, upper: expected + reach } };
    };
    expect(coverage(customers["a level that drifts"] ?? expect.fail("no customer"), naive)).toBeLessThan(0.6);
  });
});

describe("forecastRest", () => {
  const amounts = fc.array(fc.double({ min: 0, max: 1_000, noNaN: true }), {
    minLength: intervalDaysMin,
    maxLength: 60,
  });
  const remaining = fc.double({ min: 0, max: 31, noNaN: true });

  test("days that are all alike go on so, exactly", () => {
    const { expected, interval } = ours(Array<number>(10).fill(1.5), 6);
    expect(expected).toBeCloseTo(9, 9);
    expect(interval?.lower).toBeCloseTo(9, 6);
    expect(interval?.upper).toBeCloseTo(9, 6);
  });

  test("the interval holds what is expected, is finite and never below nothing", () => {
    fc.assert(
      fc.property(amounts, remaining, (dailyAmounts, remainingDays) => {
        const { expected, interval } = forecastRest({ dailyAmounts, remainingDays });
        expect(interval?.lower).toBeGreaterThanOrEqual(0);
        expect(interval?.lower).toBeLessThanOrEqual(expected);
        expect(interval?.upper).toBeGreaterThanOrEqual(expected);
        expect(Number.isFinite(interval?.upper)).toBe(true);
      }),
    );
  });

  test("another currency unit changes nothing but the unit", () => {
    fc.assert(
      fc.property(amounts, remaining, (dailyAmounts, remainingDays) => {
        const cents = forecastRest({ dailyAmounts: dailyAmounts.map((amount) => amount * 128), remainingDays });
        const whole = forecastRest({ dailyAmounts, remainingDays });
        expect(cents.expected).toBeCloseTo(whole.expected * 128, 3);
        expect(cents.interval?.upper).toBeCloseTo((whole.interval?.upper ?? -1) * 128, 3);
      }),
    );
  });

  test("the nearer the end, the narrower", () => {
    const random = randomFrom(1);
    const days = series(30, () => Math.exp(0.3 * normal(random)));
    const widths = [20, 10, 5, 1, 0.2].map((rest) => {
      const { interval } = ours(days, rest);
      return (interval?.upper ?? 0) - (interval?.lower ?? 0);
    });
    expect(widths).toEqual(widths.toSorted((a, b) => b - a));
  });

  test("says nothing of certainty from a few days, and nothing at all from none", () => {
    expect(ours([1, 1, 1], 2)).toEqual({ expected: expect.closeTo(2, 9), interval: undefined });
    expect(ours([], 2)).toEqual({ expected: 0, interval: undefined });
    expect(ours([1, 2], 0)).toEqual({ expected: 0, interval: { lower: 0, upper: 0 } });
  });
});
