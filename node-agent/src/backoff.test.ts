import fc from "fast-check";
import { expect, test } from "vitest";
import { fullJitterMs } from "./backoff.ts";

test("a wait is never negative, never above the cap, and grows at most twofold a step", () => {
  const limits = { baseMs: 500, capMs: 30_000 };
  fc.assert(
    fc.property(fc.nat(), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (attempt, random) => {
      const wait = fullJitterMs(attempt, random, limits);
      expect(wait).toBeGreaterThanOrEqual(0);
      expect(wait).toBeLessThanOrEqual(Math.min(limits.capMs, 500 * 2 ** attempt));
    }),
  );
});
