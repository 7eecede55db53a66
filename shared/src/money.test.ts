import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { currencyExponent, Money } from "./money.ts";

const usd = (text: string) => Money.of(text, "USD");
const currency = fc.constantFrom("USD", "JPY", "KWD", "IDR", "CLF");
const minorUnits = fc.bigInt({ min: -(10n ** 20n), max: 10n ** 20n });

function payable(units: bigint, code: string): Money {
  const digits = String(units < 0n ? -units : units).padStart(currencyExponent(code) + 1, "0");
  const cut = digits.length - currencyExponent(code);
  const text = currencyExponent(code) === 0 ? digits : `${digits.slice(0, cut)}.${digits.slice(cut)}`;
  return Money.of(units < 0n ? `-${text}` : text, code);
}

describe("Money", () => {
  test("adds what floating point cannot", () => {
    expect(usd("0.1").plus(usd("0.2")).toString()).toBe("0.30");
    expect(Money.sum([usd("14.60"), usd("14.60"), usd("5")], "USD").toString()).toBe("34.20");
  });

  test("keeps places beyond the currency until it is rounded, half to even", () => {
    expect(usd("0.0000000123").toString()).toBe("0.0000000123");
    expect([usd("0.125"), usd("0.135"), usd("-0.125")].map((money) => money.rounded().toString())).toEqual([
      "0.12",
      "0.14",
      "-0.12",
    ]);
    expect(Money.of("2.5", "JPY").rounded().toString()).toBe("2");
    expect(Money.of("1.0005", "KWD").rounded().toString()).toBe("1.000");
  });

  test("refuses what is no decimal, no currency or another currency", () => {
    expect(() => usd("1e3")).toThrow("not a decimal amount");
    expect(() => usd("NaN")).toThrow("not a decimal amount");
    expect(() => Money.of("1", "usd")).toThrow("not a currency code");
    expect(() => usd("1").plus(Money.of("1", "EUR"))).toThrow("EUR is not USD");
    expect(() => usd("1").times("x")).toThrow("not a decimal factor");
  });

  test("travels as a decimal string and comes back as itself", () => {
    fc.assert(
      fc.property(minorUnits, currency, (units, code) => {
        const money = payable(units, code);
        const text: unknown = JSON.parse(JSON.stringify(money));
        expect(Money.of(String(text), code).compare(money)).toBe(0);
      }),
    );
  });

  test("rounding moves by at most half a minor unit and is idempotent", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(10n ** 15n), max: 10n ** 15n }), (tenBillionths) => {
        const digits = String(tenBillionths < 0n ? -tenBillionths : tenBillionths).padStart(11, "0");
        const money = usd(`${tenBillionths < 0n ? "-" : ""}${digits.slice(0, -10)}.${digits.slice(-10)}`);
        const difference = money.rounded().minus(money);
        expect(difference.compare(usd("0.005"))).toBeLessThanOrEqual(0);
        expect(difference.compare(usd("-0.005"))).toBeGreaterThanOrEqual(0);
        expect(money.rounded().rounded().compare(money.rounded())).toBe(0);
      }),
    );
  });
});

describe("allocate", () => {
  const weights = fc
    .array(fc.bigInt({ min: 0n, max: 10n ** 12n }), { minLength: 1, maxLength: 30 })
    .filter((list) => list.some((weight) => weight > 0n));

  test("a dollar among three", () => {
    expect(usd("1").allocate([1n, 1n, 1n]).map(String)).toEqual(["0.34", "0.33", "0.33"]);
  });

  test("the parts are payable, near their share, and sum to the whole", () => {
    fc.assert(
      fc.property(minorUnits, currency, weights, (units, code, list) => {
        const whole = payable(units, code);
        const parts = whole.allocate(list);
        expect(Money.sum(parts, code).compare(whole)).toBe(0);
        const total = list.reduce((sum, weight) => sum + weight, 0n);
        const unit = payable(1n, code);
        parts.forEach((part, index) => {
          expect(part.rounded().compare(part)).toBe(0);
          // |part × total − whole × weight| < unit × total, free of division
          const off = part.times(total).minus(whole.times(list[index] ?? 0n));
          expect(off.compare(unit.times(total))).toBe(-1);
          expect(off.compare(unit.times(-total))).toBe(1);
        });
      }),
    );
  });

  test("nothing has no parts to give, and a fraction of a cent cannot be paid", () => {
    expect(() => usd("1").allocate([0n, 0n])).toThrow("weights");
    expect(() => usd("1").allocate([2n, -1n])).toThrow("weights");
    expect(() => usd("0.001").allocate([1n])).toThrow("not payable");
  });
});
