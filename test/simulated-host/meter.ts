/** What a container's load consumes; cpu in microseconds, the rest in bytes. */
type Metered = "cpuUsec" | "throttledUsec" | "netInBytes" | "netOutBytes" | "ioReadBytes" | "ioWriteBytes";

/** An amount, or a rate per second, of everything that is metered. */
export type Amounts = Record<Metered, bigint>;

/**
 * A meter whose reading is a pure function of time: whole rates per second, and what was consumed
 * before `sinceNs` in billionths of a unit, so that no reading ever rounds twice.
 */
export interface Meter {
  sinceNs: bigint;
  perSecond: Amounts;
  /** Consumed until `sinceNs`, in units of 1e-9. */
  billionths: Amounts;
}

const BILLION = 1_000_000_000n;

/** Amounts that are all zero. */
export function zeroAmounts(): Amounts {
  return build(() => 0n);
}

/** A meter that starts at zero at `nowNs`. */
export function startMeter(perSecond: Amounts, nowNs: bigint): Meter {
  return { sinceNs: nowNs, perSecond, billionths: zeroAmounts() };
}

/** The same meter from `nowNs` on at other rates. */
export function changeRates(meter: Meter, perSecond: Amounts, nowNs: bigint): Meter {
  return { sinceNs: nowNs, perSecond, billionths: consumed(meter, nowNs) };
}

/** What the meter shows at `nowNs`, rounded down to whole units. */
export function readMeter(meter: Meter, nowNs: bigint): Amounts {
  const exact = consumed(meter, nowNs);
  return build((key) => exact[key] / BILLION);
}

/** The sum of two amounts. */
export function addAmounts(a: Amounts, b: Amounts): Amounts {
  return build((key) => a[key] + b[key]);
}

function consumed(meter: Meter, nowNs: bigint): Amounts {
  const elapsedNs = nowNs > meter.sinceNs ? nowNs - meter.sinceNs : 0n;
  return build((key) => meter.billionths[key] + meter.perSecond[key] * elapsedNs);
}

function build(value: (key: Metered) => bigint): Amounts {
  return {
    cpuUsec: value("cpuUsec"),
    throttledUsec: value("throttledUsec"),
    netInBytes: value("netInBytes"),
    netOutBytes: value("netOutBytes"),
    ioReadBytes: value("ioReadBytes"),
    ioWriteBytes: value("ioWriteBytes"),
  };
}
