import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Money } from "@cloudpods/shared/money";
import { forecastMonth, type MonthFacts } from "./forecast-month.ts";

const usd = (amount: string) => Money.of(amount, "USD");
const dayMs = 86_400_000;

/** Noon of 20 January, eleven and a half days before the end. */
const now = new Date("2026-01-20T12:00:00Z");

function facts(changes: Partial<MonthFacts> = {}): MonthFacts {
  return {
    now,
    monthEnd: new Date("2026-02-01T00:00:00Z"),
    accrued: usd("0"),
    committedRest: usd("0"),
    pods: [],
    days: [],
    ...changes,
  };
}

function pod(podId: string, daysOld: number, varying = "0") {
  return { podId, billableFrom: new Date(now.getTime() - daysOld * dayMs), varying: usd(varying) };
}

/** The last complete days of a pod, newest last, at one amount. */
function days(podId: string, count: number, amount: string) {
  return Array.from({ length: count }, (_, index) => ({
    podId,
    date: new Date(now.getTime() - (count - index) * dayMs).toISOString().slice(0, 10),
    amount: usd(amount),
  }));
}

/** The forecast with its amounts as text: two `Money` look alike to a test whatever they hold. */
function forecast(known: MonthFacts): unknown {
  return JSON.parse(JSON.stringify(forecastMonth(known)));
}

describe("forecastMonth", () => {
  test("plans and disks alone are known exactly", () => {
    const sure = facts({ accrued: usd("12.3456789012"), committedRest: usd("7.6543210988"), pods: [pod("a", 100)] });
    expect(forecast({ ...sure, days: days("a", 10, "0") })).toEqual({
      expected: "20.00",
      interval: { lower: "20.00", upper: "20.00", level: 0.8 },
      daysObserved: 10,
    });
  });

  test("what varies goes on at its pace", () => {
    const { expected, daysObserved } = forecastMonth(
      facts({ accrued: usd("10"), pods: [pod("a", 100)], days: days("a", 30, "2") }),
    );
    expect(String(expected)).toBe("33.00"); // 10 + 2 × 11.5
    expect(daysObserved).toBe(30);
  });

  test("a pod ordered three days ago is no growth: it counts with its own mean before", () => {
    const { expected, interval } = forecastMonth(
      facts({ pods: [pod("old", 100), pod("new", 4)], days: [...days("old", 30, "1"), ...days("new", 3, "1")] }),
    );
    expect(String(expected)).toBe("23.00");
    expect([String(interval?.lower), String(interval?.upper)]).toEqual(["23.00", "23.00"]);
  });

  test("a pod of this morning goes on as it began, without a claim of certainty", () => {
    const { expected, interval, daysObserved } = forecastMonth(
      facts({ accrued: usd("1"), pods: [pod("a", 0.25, "1")] }),
    );
    expect(String(expected)).toBe("47.00"); // 1 + 4 a day × 11.5
    expect(interval).toBeUndefined();
    expect(daysObserved).toBe(0);
  });

  test("a pod of five minutes is not blown up to a month", () => {
    const { expected } = forecastMonth(facts({ accrued: usd("0.01"), pods: [pod("a", 5 / 1_440, "0.01")] }));
    expect(expected.compare(usd("3"))).toBe(-1);
  });

  test("a day without any figure yet is no day without cost", () => {
    const untilTheDayBefore = days("a", 20, "1").slice(0, -1);
    const { expected, daysObserved } = forecastMonth(facts({ pods: [pod("a", 100)], days: untilTheDayBefore }));
    expect(String(expected)).toBe("11.50");
    expect(daysObserved).toBe(19);
  });

  test("a day on which a pod did not run is one without cost", () => {
    const everyOther = days("a", 21, "1").filter((_, index) => index % 2 === 0);
    const { expected } = forecastMonth(facts({ pods: [pod("a", 100)], days: everyOther }));
    expect(Number(String(expected))).toBeCloseTo(11.5 * (11 / 21), 0);
  });

  test("days of pods that are gone do not count", () => {
    const { expected } = forecastMonth(
      facts({ pods: [pod("a", 100)], days: [...days("a", 20, "1"), ...days("gone", 20, "9")] }),
    );
    expect(String(expected)).toBe("11.50");
  });

  test("at the month's end it is what was accrued", () => {
    const end = new Date("2026-02-01T00:00:00Z");
    const { expected } = forecastMonth(
      facts({ now: end, accrued: usd("5.5"), pods: [pod("a", 30)], days: days("a", 10, "3") }),
    );
    expect(String(expected)).toBe("5.50");
  });

  test("never less than what is accrued and certain, in any currency", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("USD", "JPY", "KWD"),
        fc.nat(1_000_000),
        fc.array(fc.nat(1_000_000), { maxLength: 40 }),
        fc.nat(60),
        (currency, accrued, amounts, age) => {
          const { expected, interval } = forecastMonth({
            ...facts(),
            accrued: Money.of(BigInt(accrued), currency),
            committedRest: Money.of("1", currency),
            pods: [
              { podId: "a", billableFrom: new Date(now.getTime() - age * dayMs), varying: Money.of("1", currency) },
            ],
            days: amounts.map((amount, index) => ({
              podId: "a",
              date: new Date(now.getTime() - (index + 1) * dayMs).toISOString().slice(0, 10),
              amount: Money.of(BigInt(amount), currency),
            })),
          });
          const certain = Money.of(BigInt(accrued + 1), currency);
          expect(expected.compare(certain)).toBeGreaterThanOrEqual(0);
          if (interval === undefined) return;
          expect(interval.lower.compare(certain)).toBeGreaterThanOrEqual(0);
          expect(interval.upper.compare(expected)).toBeGreaterThanOrEqual(0);
          expect(expected.compare(interval.lower)).toBeGreaterThanOrEqual(0);
        },
      ),
    );
  });
});
