import Big from "big.js";

/** ISO 4217 minor-unit exponents that are not 2 (list one of the standard). */
const exponents: Readonly<Record<string, number>> = {
  BIF: 0,
  CLP: 0,
  DJF: 0,
  GNF: 0,
  ISK: 0,
  JPY: 0,
  KMF: 0,
  KRW: 0,
  PYG: 0,
  RWF: 0,
  UGX: 0,
  UYI: 0,
  VND: 0,
  VUV: 0,
  XAF: 0,
  XOF: 0,
  XPF: 0,
  BHD: 3,
  IQD: 3,
  JOD: 3,
  KWD: 3,
  LYD: 3,
  OMR: 3,
  TND: 3,
  CLF: 4,
  UYW: 4,
};

/** Decimal places in which a currency is paid: 2 for USD, 0 for JPY, 3 for KWD. */
export function currencyExponent(currency: string): number {
  return exponents[currency] ?? 2;
}

const decimalPattern = /^-?\d{1,30}(\.\d{1,30})?$/;
const currencyPattern = /^[A-Z]{3}$/;

/**
 * An exact decimal amount of one currency. It may have more places than the currency is paid in; `rounded`
 * is the one place where they go. Amounts of different currencies do not mix.
 */
export class Money {
  /** ISO 4217, upper case. */
  readonly currency: string;
  readonly #amount: Big;

  private constructor(amount: Big, currency: string) {
    this.#amount = amount;
    this.currency = currency;
  }

  /**
   * @param amount plain decimal, e.g. "34.20"; never a floating-point number.
   * @throws RangeError for anything else, or for what is no currency code.
   */
  static of(amount: string | bigint, currency: string): Money {
    const text = String(amount);
    if (!decimalPattern.test(text)) throw new RangeError(`not a decimal amount: ${text}`);
    if (!currencyPattern.test(currency)) throw new RangeError(`not a currency code: ${currency}`);
    return new Money(new Big(text), currency);
  }

  static zero(currency: string): Money {
    return Money.of("0", currency);
  }

  /** The sum; an empty list is zero. */
  static sum(amounts: readonly Money[], currency: string): Money {
    return amounts.reduce((total, amount) => total.plus(amount), Money.zero(currency));
  }

  plus(other: Money): Money {
    return new Money(this.#amount.plus(this.#same(other)), this.currency);
  }

  minus(other: Money): Money {
    return new Money(this.#amount.minus(this.#same(other)), this.currency);
  }

  /** @param factor plain decimal or whole number. */
  times(factor: string | bigint): Money {
    const text = String(factor);
    if (!decimalPattern.test(text)) throw new RangeError(`not a decimal factor: ${text}`);
    return new Money(this.#amount.times(text), this.currency);
  }

  /** −1, 0 or 1 as this amount is less than, equal to or more than the other. */
  compare(other: Money): -1 | 0 | 1 {
    return this.#amount.cmp(this.#same(other));
  }

  isZero(): boolean {
    return this.#amount.eq(0);
  }

  /** To the currency's places, half to even, so that many roundings do not drift one way. */
  rounded(): Money {
    return new Money(this.#amount.round(currencyExponent(this.currency), Big.roundHalfEven), this.currency);
  }

  /**
   * Splits into payable parts in proportion to weights (largest remainder, Hamilton's method): each differs
   * from its exact share by less than one minor unit and their sum is this amount. Ties go to the earlier part.
   *
   * @param weights not negative, not all zero.
   * @throws RangeError when this amount itself has places that the currency is not paid in, or for wrong weights.
   */
  allocate(weights: readonly bigint[]): Money[] {
    const exponent = currencyExponent(this.currency);
    const scaled = this.#amount.times(new Big(10).pow(exponent));
    if (!scaled.round(0, Big.roundDown).eq(scaled)) throw new RangeError(`${this.toString()} is not payable`);
    const units = BigInt(scaled.toFixed(0));
    const weightsTotal = weights.reduce((total, weight) => total + weight, 0n);
    if (weightsTotal <= 0n || weights.some((weight) => weight < 0n))
      throw new RangeError("weights must not be negative and not all zero");
    const sign = units < 0n ? -1n : 1n;
    const size = units * sign;
    const shares = weights.map((weight, index) => ({
      index,
      units: (size * weight) / weightsTotal,
      remainder: (size * weight) % weightsTotal,
    }));
    const missing = Number(size - shares.reduce((total, share) => total + share.units, 0n));
    const favoured = new Set(
      shares
        .toSorted((a, b) => (a.remainder === b.remainder ? a.index - b.index : a.remainder > b.remainder ? -1 : 1))
        .slice(0, missing)
        .map(({ index }) => index),
    );
    return shares.map((share) => {
      const partUnits = sign * (share.units + (favoured.has(share.index) ? 1n : 0n));
      return new Money(new Big(partUnits).div(new Big(10).pow(exponent)), this.currency);
    });
  }

  /** Plain decimal without an exponent, with at least the currency's places: "34.20", "0.0000000123". */
  toString(): string {
    const text = this.#amount.toFixed();
    const places = text.includes(".") ? text.length - text.indexOf(".") - 1 : 0;
    const exponent = currencyExponent(this.currency);
    return places >= exponent ? text : this.#amount.toFixed(exponent);
  }

  /** As `toString`: amounts travel as decimal strings. */
  toJSON(): string {
    return this.toString();
  }

  #same(other: Money): Big {
    if (other.currency !== this.currency) throw new RangeError(`${other.currency} is not ${this.currency}`);
    return other.#amount;
  }
}
