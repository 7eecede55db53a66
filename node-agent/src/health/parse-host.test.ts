import fc from "fast-check";
import { expect, test } from "vitest";
import { busyBasisPoints, parseHostCpuTime, parseLoad1Centi, parseMemoryMb } from "./parse-host.ts";

test("waiting for a disk is idle time, and guests are not counted twice", () => {
  const stat = "cpu  100 20 30 1000 50 1 2 3 90 10\ncpu0 100 20 30 1000 50 1 2 3 90 10\n";
  expect(parseHostCpuTime(stat)).toEqual({ busyTicks: 156n, totalTicks: 1206n });
  expect(parseHostCpuTime("cpu0 1 2 3 4 5 6 7 8 9 10\n")).toBeUndefined();
});

test("the busy part is between 0 and 10000, whatever the counters do", () => {
  const ticks = fc.bigInt({ min: 0n, max: 2n ** 63n });
  const time = fc.record({ busyTicks: ticks, totalTicks: ticks });
  fc.assert(
    fc.property(fc.option(time, { nil: undefined }), time, (before, now) => {
      const points = busyBasisPoints(before, now);
      expect(points).toBeGreaterThanOrEqual(0);
      expect(points).toBeLessThanOrEqual(10_000);
    }),
  );
  const before = { busyTicks: 100n, totalTicks: 1000n };
  expect(busyBasisPoints(before, { busyTicks: 125n, totalTicks: 1200n })).toBe(1250);
});

test("memory and load", () => {
  const meminfo = "MemTotal:       65842408 kB\nMemFree:         1024 kB\nMemAvailable:   20971520 kB\n";
  expect(parseMemoryMb(meminfo, "MemTotal")).toBe(64_299);
  expect(parseMemoryMb(meminfo, "MemAvailable")).toBe(20_480);
  expect(parseMemoryMb(meminfo, "SwapTotal")).toBeUndefined();
  expect(parseLoad1Centi("12.07 3.00 1.00 2/345 6789\n")).toBe(1207);
  expect(parseLoad1Centi("")).toBeUndefined();
});
