import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { accrueByTime, estimateMonthlyCost, monthLengthMs, proportion, toMoney, toTenBillionths } from "./rules.ts";

const price = fc.bigInt({ min: 0n, max: 10n ** 16n });
const quantity = fc.bigInt({ min: 1n, max: 100_000n });
const month = fc
  .constantFrom("2026-02-01", "2024-02-01", "2026-04-01", "2026-01-01")
  .map((day) => BigInt(monthLengthMs(new Date(day))));
const standard = {
  currency: "USD",
  cpuPerHour: "0.0100000000",
  memoryGbPerHour: "0.0050000000",
  diskGbPerMonth: "0.1000000000",
  networkOutGb: "0.0500000000",
};

describe("accrueByTime", () => {
  test("a full month is exactly the monthly price, of 28, 29, 30 or 31 days", () => {
    fc.assert(
      fc.property(price, quantity, month, (monthly, count, monthMs) => {
        expect(accrueByTime(monthly, count, { anchorMs: 0n, fromMs: 0n, toMs: monthMs }, monthMs)).toBe(
          monthly * count,
        );
      }),
    );
  });

  test("the parts of any split sum to the whole", () => {
    fc.assert(
      fc.property(
        price,
        quantity,
        month,
        fc.array(fc.bigInt({ min: 0n, max: 2_678_400_000n }), { maxLength: 50 }),
        (monthly, count, monthMs, cuts) => {
          const edges = [0n, ...cuts.map((cut) => cut % monthMs), monthMs].toSorted((a, b) =>
            a < b ? -1 : a > b ? 1 : 0,
          );
          const anchorMs = edges[0] ?? 0n;
          const parts = edges
            .slice(1)
            .map((toMs, index) =>
              accrueByTime(monthly, count, { anchorMs, fromMs: edges[index] ?? 0n, toMs }, monthMs),
            );
          expect(parts.every((part) => part >= 0n)).toBe(true);
          expect(parts.reduce((sum, part) => sum + part, 0n)).toBe(monthly * count);
        },
      ),
    );
  });

  test("rounding each hour by itself would not: five dollars over 744 hours", () => {
    const hourMs = 3_600_000n;
    const monthMs = 744n * hourMs;
    const five = toTenBillionths("5");
    const naive = 744n * proportion(five, hourMs, monthMs);
    expect(naive).not.toBe(five);
    const hours = Array.from({ length: 744 }, (_, hour) => ({
      anchorMs: 0n,
      fromMs: BigInt(hour) * hourMs,
      toMs: BigInt(hour + 1) * hourMs,
    }));
    expect(hours.reduce((sum, stretch) => sum + accrueByTime(five, 1n, stretch, monthMs), 0n)).toBe(five);
  });
});

describe("proportion", () => {
  test("is off by at most half of the last place", () => {
    fc.assert(
      fc.property(price, quantity, fc.bigInt({ min: 1n, max: 10n ** 15n }), (amount, part, whole) => {
        const twiceOff = 2n * (proportion(amount, part, whole) * whole - amount * part);
        expect(twiceOff).toBeLessThanOrEqual(whole);
        expect(twiceOff).toBeGreaterThan(-whole);
      }),
    );
  });

  test("decimals come back as they went in", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(10n ** 25n), max: 10n ** 25n }), (units) => {
        expect(toTenBillionths(toMoney(units, "USD").toString())).toBe(units);
      }),
    );
    expect(() => toTenBillionths("0.00000000001")).toThrow("at most 10 places");
    expect(() => toTenBillionths("1e3")).toThrow("not an amount");
  });
});

describe("estimateMonthlyCost", () => {
  test("2 cores, 4 GB and 50 GB cost 34.20 without traffic, 34.70 with the 10 GB that are assumed", () => {
    const pod = { cores: 2, memoryMb: 4096, diskGb: 50 };
    expect(JSON.parse(JSON.stringify(estimateMonthlyCost(standard, { ...pod, estimatedNetworkOutGb: 0 })))).toEqual({
      cpuCost: "14.60",
      memoryCost: "14.60",
      diskCost: "5.00",
      networkCost: "0.00",
      total: "34.20",
    });
    expect(estimateMonthlyCost(standard, pod).total.toString()).toBe("34.70");
    expect(estimateMonthlyCost(standard, { vcpus: 2, memoryMb: 4096, diskGb: 50 }).total.toString()).toBe("34.70");
  });

  test("the parts are payable and sum to the total", () => {
    const size = fc.record({
      cores: fc.integer({ min: 1, max: 128 }),
      memoryMb: fc.integer({ min: 16, max: 1_000_000 }),
      diskGb: fc.integer({ min: 1, max: 100_000 }),
      estimatedNetworkOutGb: fc.double({ min: 0, max: 1e6, noNaN: true }),
    });
    fc.assert(
      fc.property(size, (pod) => {
        const { total, ...parts } = estimateMonthlyCost(standard, pod);
        const sum = parts.cpuCost.plus(parts.memoryCost).plus(parts.diskCost).plus(parts.networkCost);
        expect(sum.compare(total)).toBe(0);
        expect(total.rounded().compare(total)).toBe(0);
      }),
    );
  });
});
