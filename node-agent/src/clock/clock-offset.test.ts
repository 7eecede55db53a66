import fc from "fast-check";
import { expect, test } from "vitest";
import { type ClockExchange, MAX_ROUND_TRIP_MS, type OffsetState, afterExchange, offsetAt } from "./clock-offset.ts";

const TRUE_OFFSET_MS = 1_700_000_000_000;

/** An exchange with a control plane whose clock is right, asked at `atMs`. */
function honest(atMs: number, forthMs: number, backMs: number, offsetMs = TRUE_OFFSET_MS): ClockExchange {
  const receivedMonotonicMs = atMs + forthMs + backMs;
  return { sentMonotonicMs: atMs, receivedMonotonicMs, serverTimeMs: atMs + forthMs + offsetMs };
}

test("the first exchange is believed at once", () => {
  const state = afterExchange(undefined, honest(1000, 20, 20));
  expect(state && offsetAt(state, 1040)).toBe(TRUE_OFFSET_MS);
});

test("an exchange that was too slow or ran backwards tells nothing", () => {
  expect(afterExchange(undefined, honest(1000, MAX_ROUND_TRIP_MS, 0))).toBeUndefined();
  expect(afterExchange(undefined, honest(1000, -1, 0))).toBeUndefined();
  expect(afterExchange(undefined, honest(1000, Number.NaN, 0))).toBeUndefined();
});

test("a jitter within the error of the exchange does not move the target", () => {
  const state = afterExchange(undefined, honest(1000, 10, 10));
  expect(afterExchange(state, honest(2000, 200, 10))).toBeUndefined();
});

test("whatever the control plane answers, the offset moves by at most 500 ms a minute", () => {
  const step = fc.record({
    waitMs: fc.integer({ min: 0, max: 600_000 }),
    roundTripMs: fc.integer({ min: 0, max: 2 * MAX_ROUND_TRIP_MS }),
    serverStepMs: fc.integer({ min: -86_400_000, max: 86_400_000 }),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 30 }), (steps) => {
      let state: OffsetState | undefined = afterExchange(undefined, honest(0, 5, 5));
      let nowMs = 10;
      for (const { waitMs, roundTripMs, serverStepMs } of steps) {
        if (state === undefined) throw new Error("the first exchange was refused");
        const beforeMs = offsetAt(state, nowMs);
        const exchange = honest(nowMs + waitMs, roundTripMs, 0, TRUE_OFFSET_MS + serverStepMs);
        state = afterExchange(state, exchange) ?? state;
        const laterMs = exchange.receivedMonotonicMs;
        const allowedMs = ((laterMs - nowMs) * 500) / 60_000;
        expect(Math.abs(offsetAt(state, laterMs) - beforeMs)).toBeLessThanOrEqual(allowedMs + 1e-3);
        nowMs = laterMs;
      }
    }),
  );
});

test("time never runs backwards while the offset is being corrected", () => {
  const state: OffsetState = {
    offsetMs: TRUE_OFFSET_MS + 600_000,
    sinceMonotonicMs: 0,
    targetMs: TRUE_OFFSET_MS,
    roundTripMs: 1,
  };
  fc.assert(
    fc.property(fc.nat(10_000_000), fc.nat(10_000), (atMs, stepMs) => {
      const earlier = atMs + offsetAt(state, atMs);
      expect(atMs + stepMs + offsetAt(state, atMs + stepMs)).toBeGreaterThanOrEqual(earlier);
    }),
  );
});

test("with honest answers the error ends within half a round trip", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(240), fc.nat(240)), { minLength: 1, maxLength: 20 }), (trips) => {
      let state: OffsetState | undefined;
      trips.forEach(([forthMs, backMs], index) => {
        state = afterExchange(state, honest(index * 3_600_000, forthMs, backMs)) ?? state;
      });
      if (state === undefined) throw new Error("no exchange was accepted");
      expect(Math.abs(state.targetMs - TRUE_OFFSET_MS)).toBeLessThanOrEqual(state.roundTripMs / 2);
    }),
  );
});
