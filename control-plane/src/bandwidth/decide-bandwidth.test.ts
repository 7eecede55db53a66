import fc from "fast-check";
import { expect, test } from "vitest";
import { bytesOfGb, decideBandwidth, throttledRateKib } from "./decide-bandwidth.ts";

const policy = fc.constantFrom("throttle" as const, "charge" as const, "none" as const);
const gb = fc.integer({ min: 1, max: 1_000_000 });
const bytes = fc.bigInt({ min: 0n, max: 2n ** 62n });

test.each([
  [0n, [], false],
  [bytesOfGb(40) - 1n, [], false],
  [bytesOfGb(40), [80], false],
  [bytesOfGb(50) - 1n, [80], false],
  [bytesOfGb(50), [80, 100], true],
  [2n ** 60n, [80, 100], true],
])("of 50 GB %s bytes reach %j, throttled: %s", (usedBytes, reached, throttle) => {
  expect(decideBandwidth({ usedBytes, allowanceGb: 50, overagePolicy: "throttle" })).toEqual({ reached, throttle });
});

test("only the policy throttle slows, only beyond the allowance, and more traffic never gives less", () => {
  fc.assert(
    fc.property(bytes, bytes, gb, policy, (usedBytes, more, allowanceGb, overagePolicy) => {
      const now = decideBandwidth({ usedBytes, allowanceGb, overagePolicy });
      const later = decideBandwidth({ usedBytes: usedBytes + more, allowanceGb, overagePolicy });
      expect(now.throttle).toBe(overagePolicy === "throttle" && now.reached.includes(100));
      expect(later.reached).toEqual(expect.arrayContaining([...now.reached]));
      if (now.throttle) expect(later.throttle).toBe(true);
    }),
  );
});

test("a plan without an allowance has no marks", () => {
  fc.assert(
    fc.property(bytes, policy, (usedBytes, overagePolicy) => {
      expect(decideBandwidth({ usedBytes, allowanceGb: null, overagePolicy })).toEqual({
        reached: [],
        throttle: false,
      });
    }),
  );
});

test("throttling never makes a pod faster and never unlimited, and twice is as once", () => {
  fc.assert(
    fc.property(fc.nat({ max: 1_000_000 }), (rate) => {
      const slow = throttledRateKib(rate);
      expect(slow).toBeGreaterThan(0);
      if (rate > 0) expect(slow).toBeLessThanOrEqual(rate);
      expect(throttledRateKib(slow)).toBe(slow);
    }),
  );
});
