import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { realtimeUsage, type MeasuredInterval } from "./realtime-usage.ts";

const endMs = Date.UTC(2026, 0, 31, 12);

/** The minute that ended `minutesAgo`; `cpuShare` of all its cores. */
function minute(minutesAgo: number, cpuShare: number, changes: Partial<MeasuredInterval> = {}): MeasuredInterval {
  return {
    startMs: endMs - (minutesAgo + 1) * 60_000,
    endMs: endMs - minutesAgo * 60_000,
    cpuUsageUs: BigInt(Math.round(cpuShare * 2 * 60_000_000)),
    memoryByteMs: 512n * 2n ** 20n * 60_000n,
    diskByteMs: 5n * 2n ** 30n * 60_000n,
    cores: 2,
    memoryMb: 1024,
    diskGb: 20,
    ...changes,
  };
}

describe("realtimeUsage", () => {
  test("without samples there is no data", () => {
    expect(realtimeUsage([])).toEqual({ status: "no_data" });
  });

  test("shows the newest minute and the average of all", () => {
    expect(realtimeUsage([minute(1, 0.1), minute(0, 0.5), minute(2, 0.3)])).toEqual({
      status: "live",
      lastUpdate: new Date(endMs),
      current: {
        cpuPercent: 50,
        memoryUsedMb: 512,
        memoryTotalMb: 1024,
        memoryPercent: 50,
        diskUsedGb: 5,
        diskTotalGb: 20,
        diskPercent: 25,
      },
      averages: { cpuPercent5min: 30 },
    });
  });

  test("weighs intervals by their length", () => {
    const long = minute(0, 0, { startMs: endMs - 3 * 60_000 });
    expect(realtimeUsage([long, minute(3, 1)])).toMatchObject({ averages: { cpuPercent5min: 25 } });
  });

  test("gives no percentage of an unknown total", () => {
    expect(realtimeUsage([minute(0, 0.5, { memoryMb: 0, diskGb: 0 })])).toMatchObject({
      current: { memoryPercent: null, diskPercent: null },
    });
  });

  test("the average lies between the lowest and the highest minute, in any order", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 5 }), (shares) => {
        const intervals = shares.map((share, index) => minute(index, share));
        const usage = realtimeUsage(intervals);
        if (usage.status !== "live") return expect.fail("no data");
        const percents = shares.map((share) => 100 * share);
        expect(usage.averages.cpuPercent5min).toBeGreaterThanOrEqual(Math.min(...percents) - 0.06);
        expect(usage.averages.cpuPercent5min).toBeLessThanOrEqual(Math.max(...percents) + 0.06);
        expect(realtimeUsage(intervals.toReversed())).toEqual(usage);
      }),
    );
  });
});
