import fc from "fast-check";
import { expect, test } from "vitest";
import { decimalQuotient, gibibyte } from "./exact-decimal.ts";

test("rounds half away from zero", () => {
  expect(decimalQuotient(1n, 8n, 2)).toBe("0.13");
  expect(decimalQuotient(-1n, 8n, 2)).toBe("-0.13");
  expect(decimalQuotient(-1n, 1_000n, 2)).toBe("0.00");
  expect(decimalQuotient(5n, 2n, 0)).toBe("3");
});

test("differs from the true quotient by at most half a unit of the last place, beyond 2^53 too", () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: -(2n ** 80n), max: 2n ** 80n }),
      fc.bigInt({ min: 1n, max: 2n ** 64n }),
      fc.nat(12),
      (a, b, places) => {
        const units = BigInt(decimalQuotient(a, b, places).replace(".", ""));
        const difference = units * b - a * 10n ** BigInt(places);
        expect((difference < 0n ? -difference : difference) * 2n <= b).toBe(true);
      },
    ),
  );
  expect(decimalQuotient(2n ** 63n + 1n, gibibyte, 12)).toBe("8589934592.000000000931");
});

test("divides by no nothing", () => {
  expect(() => decimalQuotient(1n, 0n, 2)).toThrow(RangeError);
});
