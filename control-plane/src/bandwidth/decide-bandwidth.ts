/** A pod's allowance and how far it is used, in a month (UTC). */
export interface BandwidthUse {
  /** Outgoing bytes of the guest; what comes in is not counted. */
  readonly usedBytes: bigint;
  /** Of the pod's plan, per month; null: unmetered. 1 GB = 2^30 bytes. */
  readonly allowanceGb: number | null;
  readonly overagePolicy: "throttle" | "charge" | "none";
}

/** What follows from a use. */
export interface BandwidthVerdict {
  /** Marks (percent) that are reached, whether told already or not. */
  readonly reached: readonly number[];
  /** Whether the pod's network must be slow. */
  readonly throttle: boolean;
}

/** Percent of the allowance at which the tenant is told. */
export const bandwidthMarks: readonly number[] = [80, 100];

/** Bytes of a plan's gigabytes. */
export function bytesOfGb(gb: number): bigint {
  return BigInt(gb) * 2n ** 30n;
}

/**
 * Judges a use. Beyond the allowance only the policy `throttle` does something here; `charge` is on the bill and
 * `none` is free.
 */
export function decideBandwidth({ usedBytes, allowanceGb, overagePolicy }: BandwidthUse): BandwidthVerdict {
  if (allowanceGb === null) return { reached: [], throttle: false };
  const allowance = bytesOfGb(allowanceGb);
  const reached = bandwidthMarks.filter((percent) => usedBytes * 100n >= allowance * BigInt(percent));
  return { reached, throttle: overagePolicy === "throttle" && usedBytes >= allowance };
}

/**
 * The rate of a throttled pod in KiB/s: 1 Mbit/s, on which mail and a shell still work; a pod that is slower already
 * stays as slow. 0 means unlimited.
 */
export function throttledRateKib(rateKib: number): number {
  return rateKib === 0 ? throttleKib : Math.min(rateKib, throttleKib);
}

const throttleKib = 128;
