import { Money } from "@cloudpods/shared/money";

/**
 * Amounts of usage are whole numbers of ten-billionths of the currency (ten decimal places). They are rounded
 * to the currency's own places once, on an invoice line.
 */
export type TenBillionths = bigint;

const places = 10;
const oneWhole = 10n ** BigInt(places);

/** "0.05" → 500000000n. @throws RangeError for more than ten places or what is no decimal. */
export function toTenBillionths(amount: string): TenBillionths {
  const match = /^(-?)(\d+)(?:\.(\d{1,10})0*)?$/.exec(amount);
  if (match === null) throw new RangeError(`not an amount of at most ${places} places: ${amount}`);
  const [, sign, whole = "0", fraction = ""] = match;
  const units = BigInt(whole) * oneWhole + BigInt(fraction.padEnd(places, "0"));
  return sign === "-" ? -units : units;
}

/** The amount as money; not rounded. */
export function toMoney(units: TenBillionths, currency: string): Money {
  const size = String(units < 0n ? -units : units).padStart(places + 1, "0");
  return Money.of(`${units < 0n ? "-" : ""}${size.slice(0, -places)}.${size.slice(-places)}`, currency);
}

/** amount × part ÷ whole, rounded half up. The database's function `proportion` does the same. None is negative. */
export function proportion(amount: TenBillionths, part: bigint, whole: bigint): TenBillionths {
  return (2n * amount * part + whole) / (2n * whole);
}

/** A stretch of a month during which one price held for one quantity. */
export interface AccruingStretch {
  /** When price and quantity came into force, but not before the month began; ms since the month began. */
  readonly anchorMs: bigint;
  readonly fromMs: bigint;
  readonly toMs: bigint;
}

/**
 * What accrues by existence in a stretch: c(to) − c(from) with c(t) = price × quantity × (t − anchor) ÷ month.
 * However the time is cut, the parts sum to the whole, and a whole month is exactly the monthly price.
 */
export function accrueByTime(
  monthlyPrice: TenBillionths,
  quantity: bigint,
  stretch: AccruingStretch,
  monthMs: bigint,
): TenBillionths {
  const until = (atMs: bigint) => proportion(monthlyPrice * quantity, atMs - stretch.anchorMs, monthMs);
  return until(stretch.toMs) - until(stretch.fromMs);
}

/** Length of the UTC month of an instant: 28 to 31 days. */
export function monthLengthMs(at: Date): number {
  const [year, month] = [at.getUTCFullYear(), at.getUTCMonth()];
  return Date.UTC(year, month + 1) - Date.UTC(year, month);
}

/** Rates of a price list; decimals as the database writes them. */
export interface Rates {
  readonly currency: string;
  readonly cpuPerHour: string;
  readonly memoryGbPerHour: string;
  readonly diskGbPerMonth: string;
  readonly networkOutGb: string;
}

/** A pod that is thought about. `vcpus` is another name of `cores`. */
export type EstimatedPod = ({ readonly cores: number } | { readonly vcpus: number }) & {
  readonly memoryMb: number;
  readonly diskGb: number;
  /** GB of 2^30 bytes a month; 10 where nothing is said. */
  readonly estimatedNetworkOutGb?: number;
};

/** What a pod would cost a month. */
export interface MonthlyEstimate {
  readonly cpuCost: Money;
  readonly memoryCost: Money;
  readonly diskCost: Money;
  readonly networkCost: Money;
  readonly total: Money;
}

/** The hours of an average month: 365 × 24 ÷ 12. */
const hoursPerMonth = 730n;
const bytesPerGb = 2 ** 30;

/**
 * The cost of a metered pod that runs all of an average month of 730 hours, in payable amounts that sum to
 * the total.
 */
export function estimateMonthlyCost(rates: Rates, pod: EstimatedPod): MonthlyEstimate {
  const cores = BigInt("cores" in pod ? pod.cores : pod.vcpus);
  const outBytes = BigInt(Math.round((pod.estimatedNetworkOutGb ?? 10) * bytesPerGb));
  const exact = [
    toTenBillionths(rates.cpuPerHour) * cores * hoursPerMonth,
    proportion(toTenBillionths(rates.memoryGbPerHour) * hoursPerMonth, BigInt(pod.memoryMb), 1024n),
    toTenBillionths(rates.diskGbPerMonth) * BigInt(pod.diskGb),
    proportion(toTenBillionths(rates.networkOutGb), outBytes, BigInt(bytesPerGb)),
  ];
  const sum = exact.reduce((total, part) => total + part, 0n);
  const total = toMoney(sum, rates.currency).rounded();
  const nothing = Money.zero(rates.currency);
  const [cpuCost = nothing, memoryCost = nothing, diskCost = nothing, networkCost = nothing] =
    sum === 0n ? [] : total.allocate(exact);
  return { cpuCost, memoryCost, diskCost, networkCost, total };
}
