import fc from "fast-check";
import { expect, test } from "vitest";
import { waitUntilNext } from "./sampler.ts";

test("ticks come at multiples of the interval, never two at once and never two intervals apart", () => {
  const interval = fc.constantFrom(1000, 2000, 10_000, 60_000);
  fc.assert(
    fc.property(fc.integer({ min: 1_700_000_000_000, max: 1_700_000_600_000 }), interval, (nowMs, intervalMs) => {
      const waitMs = waitUntilNext(nowMs, intervalMs);
      expect((nowMs + waitMs) % intervalMs).toBe(0);
      expect(waitMs).toBeGreaterThanOrEqual(Math.min(500, intervalMs / 2));
      expect(waitMs).toBeLessThan(2 * intervalMs);
    }),
  );
});
