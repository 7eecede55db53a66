/** Amounts of money are whole numbers of 10^-10 of the currency's unit. */
const scale = 10n ** 10n;

/** Reads a decimal string such as "0.0125". */
export function amountOf(text: string): bigint {
  const [, sign = "", whole = "", fraction = ""] = /^(-?)(\d+)(?:\.(\d{1,10}))?$/.exec(text) ?? [];
  if (whole === "") throw new Error(`${text} is no amount`);
  const amount = BigInt(whole) * scale + BigInt(fraction.padEnd(10, "0"));
  return sign === "-" ? -amount : amount;
}

/** Writes an amount as a decimal string with ten places. */
export function textOf(amount: bigint): string {
  const size = amount < 0n ? -amount : amount;
  return `${amount < 0n ? "-" : ""}${size / scale}.${String(size % scale).padStart(10, "0")}`;
}

/** amount × part / whole, rounded half up once. None of them is negative. */
export function share(amount: bigint, part: bigint, whole: bigint): bigint {
  return (2n * amount * part + whole) / (2n * whole);
}
