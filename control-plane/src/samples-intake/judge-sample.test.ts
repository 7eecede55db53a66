import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { sampleOf } from "../../../test/support/telemetry-fleet.ts";
import { hoursTouched, isWithinStay, judgeValues } from "./judge-sample.ts";

const nowMs = Date.UTC(2026, 0, 31, 12);
const pod = { podId: "0198a3f0-0000-7000-8000-000000000001", vmid: 100_000, tenantId: "" };
const minute = 60_000;

describe("judgeValues", () => {
  test("believes a plausible minute", () => {
    expect(judgeValues(sampleOf(pod, nowMs), nowMs)).toBeUndefined();
  });

  test.each([
    ["five minutes ahead", { endMs: BigInt(nowMs + 5 * minute), startMs: BigInt(nowMs) }, undefined],
    ["a little more", { endMs: BigInt(nowMs + 5 * minute + 1), startMs: BigInt(nowMs) }, "TIME_IN_FUTURE"],
    ["no length", { startMs: BigInt(nowMs) }, "INTERVAL_INVALID"],
    ["a day", { startMs: BigInt(nowMs - 1_440 * minute) }, undefined],
    ["more than a day", { startMs: BigInt(nowMs - 1_440 * minute - 1) }, "INTERVAL_INVALID"],
    ["the epoch", { startMs: 0n, endMs: 60_000n }, "INTERVAL_INVALID"],
    ["the end of time", { startMs: 2n ** 62n, endMs: 2n ** 62n + 1n }, "TIME_IN_FUTURE"],
    ["no sample merged", { sampleCount: 0 }, "VALUE_OUT_OF_RANGE"],
    ["too many cores for the column", { cores: 2_147_483_648 }, "VALUE_OUT_OF_RANGE"],
    ["an incarnation with a zero byte", { incarnation: "a\0b" }, "INCARNATION_INVALID"],
    ["an endless incarnation", { incarnation: "x".repeat(201) }, "INCARNATION_INVALID"],
  ] as const)("%s: %o is %s", (_what, changes, verdict) => {
    expect(judgeValues(sampleOf(pod, nowMs, changes), nowMs)).toBe(verdict);
  });

  test.each([
    "cpuUsageUs",
    "memoryByteMs",
    "memoryMaxBytes",
    "diskByteMs",
    "diskMaxBytes",
    "guestInBytes",
    "guestOutBytes",
    "ioReadBytes",
    "ioWriteBytes",
    "runningMs",
  ] as const)("does not believe a negative %s", (counter) => {
    expect(judgeValues(sampleOf(pod, nowMs, { [counter]: -1n }), nowMs)).toBe("VALUE_OUT_OF_RANGE");
  });
});

describe("isWithinStay", () => {
  const stay = { fromMs: nowMs - 10 * minute, toMs: nowMs - 5 * minute };

  test("takes exactly what lies in a stay, give or take a minute", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -20 * minute, max: 20 * minute }),
        fc.integer({ min: 1, max: 10 * minute }),
        (offset, length) => {
          const startMs = nowMs - 7 * minute + offset;
          const sample = sampleOf(pod, startMs + length, { startMs: BigInt(startMs) });
          const expected = startMs >= stay.fromMs - minute && startMs + length <= stay.toMs + minute;
          expect(isWithinStay(sample, [stay])).toBe(expected);
        },
      ),
    );
  });

  test("knows no stay of a stranger and all stays of a returner", () => {
    const sample = sampleOf(pod, nowMs);
    expect(isWithinStay(sample, undefined)).toBe(false);
    expect(isWithinStay(sample, [stay, { fromMs: nowMs - minute, toMs: Infinity }])).toBe(true);
  });
});

test("hoursTouched spans every millisecond of the interval and no other hour", () => {
  fc.assert(
    fc.property(fc.nat(10_000_000), fc.integer({ min: 1, max: 20_000_000 }), (offset, length) => {
      const startMs = nowMs + offset;
      const { from, to } = hoursTouched(startMs, startMs + length);
      expect(from).toBe(Math.floor(startMs / 3_600_000) * 3_600_000);
      expect(to).toBe(Math.floor((startMs + length - 1) / 3_600_000) * 3_600_000);
    }),
  );
});
