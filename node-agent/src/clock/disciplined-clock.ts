import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ClockExchange, type OffsetState, afterExchange, offsetAt } from "./clock-offset.ts";

/** The clock that samples are measured with. All times are whole milliseconds. */
export interface DisciplinedClock {
  /** The boot of the host that `monotonicMs` counts in. */
  readonly bootId: string;
  /** CLOCK_MONOTONIC: the only source of durations. */
  monotonicMs(): number;
  /** Time since 1970 UTC: disciplined, or the wall clock before the first contact of this boot. */
  epochMs(): number;
  /** `epochMs() - monotonicMs()` in force now. */
  offsetMs(): number;
  /** Whether the control plane's clock was ever learned in this boot. */
  isSynchronised(): boolean;
  /** Learns from an exchange. Returns false when it was too slow or told nothing new. */
  recordExchange(exchange: ClockExchange): boolean;
  /** Takes over what an earlier process learned in this boot; without effect once synchronised. */
  resume(offsetMs: number): void;
}

/** Sources of a disciplined clock. */
export interface DisciplinedClockOptions {
  /** Contents of /proc/sys/kernel/random/boot_id, see `readBootId`. */
  readonly bootId: string;
  /** CLOCK_MONOTONIC in ms; process.hrtime by default. */
  readonly monotonicMs?: () => number;
  /** CLOCK_REALTIME in ms since 1970; Date.now by default. */
  readonly wallMs?: () => number;
}

/** Makes a clock. */
export function createDisciplinedClock(options: DisciplinedClockOptions): DisciplinedClock {
  const { bootId } = options;
  const wallMs = options.wallMs ?? Date.now;
  const readMonotonic = options.monotonicMs ?? hrtimeMs;
  const monotonicMs = (): number => Math.floor(readMonotonic());
  let state: OffsetState | undefined;
  const offsetFrom = (nowMs: number): number =>
    Math.round(state === undefined ? wallMs() - nowMs : offsetAt(state, nowMs));

  return {
    bootId,
    monotonicMs,
    epochMs() {
      const nowMs = monotonicMs();
      return nowMs + offsetFrom(nowMs);
    },
    offsetMs: () => offsetFrom(monotonicMs()),
    isSynchronised: () => state !== undefined,
    recordExchange(exchange) {
      const next = afterExchange(state, exchange);
      if (next === undefined) return false;
      state = next;
      return true;
    },
    resume(offsetMs) {
      // No exchange of this process stands behind it, so any exchange is better.
      const roundTripMs = Number.POSITIVE_INFINITY;
      state ??= { offsetMs, sinceMonotonicMs: monotonicMs(), targetMs: offsetMs, roundTripMs };
    },
  };
}

/**
 * The id that the kernel gave to this boot (random(4)).
 *
 * @param procRoot mount point of procfs
 */
export function readBootId(procRoot: string): string {
  return readFileSync(join(procRoot, "sys/kernel/random/boot_id"), "utf8").trim();
}

/** CLOCK_MONOTONIC in ms; process.hrtime is clock_gettime(CLOCK_MONOTONIC) on Linux. */
function hrtimeMs(): number {
  return Number(process.hrtime.bigint() / 1_000_000n);
}
