import fc from "fast-check";
import { expect, test } from "vitest";
import { createDisciplinedClock } from "./disciplined-clock.ts";

const START_MS = 1_700_000_000_000;

/** A host whose two clocks a test moves. */
function host(): { monotonicMs: number; wallMs: number } {
  return { monotonicMs: 5000, wallMs: START_MS };
}

function clockOf(state: { monotonicMs: number; wallMs: number }) {
  return createDisciplinedClock({
    bootId: "b",
    monotonicMs: () => state.monotonicMs,
    wallMs: () => state.wallMs,
  });
}

test("before the first contact the wall clock is all there is", () => {
  const state = host();
  const clock = clockOf(state);
  expect(clock.isSynchronised()).toBe(false);
  expect(clock.epochMs()).toBe(START_MS);
  state.wallMs += 600_000;
  expect(clock.epochMs()).toBe(START_MS + 600_000);
});

test("after the first contact steps of the wall clock by ten minutes change nothing", () => {
  const step = fc.tuple(fc.nat(120_000), fc.integer({ min: -600_000, max: 600_000 }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const state = host();
      const clock = clockOf(state);
      const serverTimeMs = START_MS + 123_456;
      clock.recordExchange({ sentMonotonicMs: 5000, receivedMonotonicMs: 5000, serverTimeMs });
      for (const [waitMs, wallStepMs] of steps) {
        state.monotonicMs += waitMs;
        state.wallMs += waitMs + wallStepMs;
        expect(clock.epochMs()).toBe(serverTimeMs + state.monotonicMs - 5000);
      }
    }),
  );
});

test("an offset of an earlier process is resumed once and gives way to any exchange", () => {
  const state = host();
  const clock = clockOf(state);
  clock.resume(START_MS + 1000);
  clock.resume(0);
  expect(clock.isSynchronised()).toBe(true);
  expect(clock.offsetMs()).toBe(START_MS + 1000);
  const exchange = { sentMonotonicMs: 5000, receivedMonotonicMs: 5400, serverTimeMs: START_MS + 6250 };
  expect(clock.recordExchange(exchange)).toBe(true);
  state.monotonicMs += 600_000;
  expect(clock.offsetMs()).toBe(START_MS + 1050);
});
