/**
 * A quotient of whole numbers as decimal text, rounded half away from zero at `places`. Exact however large the counters are:
 * they are divided before anything becomes a floating-point number.
 * @throws RangeError when the denominator is not positive
 */
export function decimalQuotient(numerator: bigint, denominator: bigint, places: number): string {
  if (denominator <= 0n) throw new RangeError("the denominator must be positive");
  const scaled = (numerator < 0n ? -numerator : numerator) * 10n ** BigInt(places);
  const units = (scaled * 2n + denominator) / (denominator * 2n);
  const digits = units.toString().padStart(places + 1, "0");
  const whole = digits.slice(0, digits.length - places);
  const sign = numerator < 0n && units !== 0n ? "-" : "";
  return places === 0 ? sign + whole : `${sign}${whole}.${digits.slice(-places)}`;
}

/** Bytes of a MB and of a GB: powers of two everywhere, traffic included. */
export const mebibyte = 2n ** 20n;
export const gibibyte = 2n ** 30n;
/** Milliseconds of an hour. */
export const hourMs = 3_600_000n;
