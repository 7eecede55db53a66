import fc from "fast-check";
import { expect, test } from "vitest";
import { blockSecondsAfter, throttledAddress } from "./login-throttle.ts";

test("the wait begins at the fifth failure, doubles and ends at a quarter of an hour", () => {
  expect([1, 4, 5, 6, 7, 14, 15, 30].map((failures) => blockSecondsAfter(failures))).toEqual([
    0, 0, 1, 2, 4, 512, 900, 900,
  ]);
});

test("of IPv6 a network of 64 bits counts as one address, however it is written", () => {
  expect(throttledAddress("192.0.2.7")).toBe("192.0.2.7");
  expect(throttledAddress(undefined)).toBe("unknown");
  expect(throttledAddress("2001:db8::1")).toBe("2001:db8:0:0::/64");
  expect(throttledAddress("2001:DB8:0:1:ffff::9%eth0")).toBe("2001:db8:0:1::/64");
  const group = fc.integer({ min: 0, max: 0xffff }).map((value) => value.toString(16));
  const half = fc.array(group, { minLength: 4, maxLength: 4 });
  fc.assert(
    fc.property(half, half, half, (network, host, other) => {
      const key = throttledAddress([...network, ...host].join(":"));
      expect(key).toBe(`${network.join(":")}::/64`);
      expect(throttledAddress([...network, ...other].join(":"))).toBe(key);
    }),
  );
});
