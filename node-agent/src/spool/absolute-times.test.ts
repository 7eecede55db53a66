import { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type TimedEnd, withAbsoluteTimes } from "./absolute-times.ts";

const OFFSET_MS = 1_700_000_000_000n;

/** Ticks of a running container, each made absolute with an offset of its own. */
const ticks = fc.array(
  fc.record({
    lengthMs: fc.bigInt({ min: 1n, max: 120_000n }),
    offsetChangeMs: fc.bigInt({ min: -5000n, max: 5000n }),
    restartAfterMs: fc.option(fc.bigInt({ min: 0n, max: 50n })),
  }),
  { minLength: 1, maxLength: 40 },
);

test("however the offset moves, intervals neither overlap nor leave a gap, and ends are unique", () => {
  fc.assert(
    fc.property(ticks, (steps) => {
      const ends = new Map<string, TimedEnd>();
      let atMs = 1000n;
      let offsetMs = OFFSET_MS;
      let last: { monotonicMs: bigint; epochMs: bigint } | undefined;
      let coveredToMs: bigint | undefined;
      for (const { lengthMs, offsetChangeMs, restartAfterMs } of steps) {
        offsetMs += offsetChangeMs;
        const startMs = atMs + (restartAfterMs ?? 0n);
        const coversFromMs = atMs;
        atMs = startMs + lengthMs;
        const sample = Sample.fromPartial({ podId: "p", startMs, endMs: atMs, runningMs: lengthMs });
        const batch = SampleBatch.fromPartial({ coversFromMs, coversToMs: atMs, samples: [sample] });
        const timed = withAbsoluteTimes(batch, offsetMs, ends);
        const [result] = timed.samples;
        if (result === undefined) throw new Error("the sample is gone");
        expect(result.endMs).toBeGreaterThan(result.startMs);
        expect(result.runningMs).toBeLessThanOrEqual(result.endMs - result.startMs);
        expect(result.startMs).toBeGreaterThanOrEqual(last?.epochMs ?? 0n);
        const isNeighbour = last?.monotonicMs === startMs;
        expect(result.startMs).toBe(isNeighbour ? last?.epochMs : result.startMs);
        expect(timed.coversFromMs).toBe(coveredToMs ?? timed.coversFromMs);
        expect(timed.completeUntilMs).toBe(timed.coversToMs);
        last = { monotonicMs: atMs, epochMs: result.endMs };
        coveredToMs = timed.coversToMs;
      }
    }),
  );
});

test("with a steady offset every time is exact", () => {
  const sample = Sample.fromPartial({ podId: "p", startMs: 5n, endMs: 65n, runningMs: 60n });
  const batch = SampleBatch.fromPartial({ coversFromMs: 0n, coversToMs: 65n, samples: [sample] });
  expect(withAbsoluteTimes(batch, OFFSET_MS, new Map())).toMatchObject({
    coversFromMs: OFFSET_MS,
    coversToMs: OFFSET_MS + 65n,
    samples: [{ startMs: OFFSET_MS + 5n, endMs: OFFSET_MS + 65n, runningMs: 60n }],
  });
});

test("a batch without cover stays without cover", () => {
  const batch = SampleBatch.fromPartial({ coversFromMs: 40n, coversToMs: 40n });
  const timed = withAbsoluteTimes(batch, OFFSET_MS, new Map());
  expect(timed.coversToMs).toBe(timed.coversFromMs);
});
