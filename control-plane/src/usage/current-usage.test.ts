import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Money } from "@cloudpods/shared/money";
import { accruedMonth } from "../../../test/support/accrued-month.ts";
import { currentUsage } from "./current-usage.ts";

const at = new Date("2026-01-15T12:00:00Z");

describe("currentUsage", () => {
  test("shows the month, its pods dearest first, and what is left of the budget", () => {
    const month = accruedMonth(at, [
      { podId: "a", parts: { cpu: "1.2345678901", disk: "2" }, uptimeMs: 90n * 60_000n, guestOutBytes: 2n ** 30n },
      { podId: "b", parts: { plan: "10.005" }, uptimeMs: 3_600_000n, guestOutBytes: 3n * 2n ** 29n },
    ]);
    const budget = {
      limit: Money.of("26.50", "USD"),
      thresholds: [50],
      hardLimitEnabled: false,
      hardLimitAction: "notify_only",
    } as const;
    expect(currentUsage(month, budget)).toEqual({
      yearMonth: "2026-01",
      timezone: "UTC",
      at,
      totalCost: { amount: "13.2395678901", currency: "USD" },
      totalCostUsd: "13.24",
      totalUptimeHours: "2.5",
      totalNetworkOutGb: "2.50",
      totalNetworkOutBytes: String(5n * 2n ** 29n),
      podBreakdown: [
        {
          podId: "b",
          podName: "name of b",
          totalCost: { amount: "10.005", currency: "USD" },
          totalCostUsd: "10.00",
          uptimeHours: 1,
          networkOutGb: 1.5,
        },
        {
          podId: "a",
          podName: "name of a",
          totalCost: { amount: "3.2345678901", currency: "USD" },
          totalCostUsd: "3.23",
          uptimeHours: 1.5,
          networkOutGb: 1,
        },
      ],
      budget: { monthlyLimit: { amount: "26.50", currency: "USD" }, monthlyLimitUsd: "26.50", percentUsed: "49.9" },
    });
  });

  test("names no dollars where there are none, and no budget where there is none", () => {
    const shown = currentUsage(accruedMonth(at, [{ podId: "a", parts: { plan: "1200" } }], "JPY"), undefined);
    expect(shown).toMatchObject({ totalCost: { amount: "1200", currency: "JPY" }, budget: null });
    expect(JSON.stringify(shown)).not.toContain("Usd");
  });

  test("the pods sum to the whole, to the last place and the last byte", () => {
    const amount = fc
      .bigInt({ min: 0n, max: 10n ** 20n })
      .map((units) => `${units / 10n ** 10n}.${String(units % 10n ** 10n).padStart(10, "0")}`);
    const pods = fc.array(fc.record({ cost: amount, bytes: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }) }), {
      maxLength: 8,
    });
    fc.assert(
      fc.property(pods, (wishes) => {
        const month = accruedMonth(
          at,
          wishes.map(({ cost, bytes }, index) => ({
            podId: `p${index}`,
            parts: { networkOut: cost },
            guestOutBytes: bytes,
          })),
        );
        const shown = currentUsage(month, undefined);
        const sum = Money.sum(
          shown.podBreakdown.map(({ totalCost }) => Money.of(totalCost.amount, "USD")),
          "USD",
        );
        expect(sum.toString()).toBe(shown.totalCost.amount);
        expect(BigInt(shown.totalNetworkOutBytes)).toBe(wishes.reduce((total, { bytes }) => total + bytes, 0n));
      }),
    );
  });
});
