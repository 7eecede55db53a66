import type { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";

/** A stretch of time in which a pod was placed on a node; `toMs` is Infinity while it is. */
export interface Stay {
  readonly fromMs: number;
  readonly toMs: number;
}

/** Why a sample that could be read is not counted. */
export type RejectionReason =
  | "NODE_REMOVED"
  | "CERTIFICATE_REVOKED"
  | "POD_NOT_PLACED_HERE"
  | "TIME_IN_FUTURE"
  | "INTERVAL_INVALID"
  | "VALUE_OUT_OF_RANGE"
  | "INCARNATION_INVALID";

/** A host's clock may be off a little around the moment in which a pod comes or goes. */
const stayToleranceMs = 60_000;
const futureToleranceMs = 5 * 60_000;
/** A host that was asleep reports one long interval; anything longer than this is a broken clock. */
const intervalMsMax = 24 * 3_600_000;
const incarnationLengthMax = 200;
/** Largest value of the columns of type integer. */
const integerMax = 2_147_483_647;
/** Length of an hour in ms. */
export const hourLengthMs = 3_600_000;
/** Before this the product did not exist; protects the calendar arithmetic from nonsense. */
const earliestMs = BigInt(Date.UTC(2020, 0, 1));

/**
 * Whether the values of a sample can be true at all: a past interval, counters that are not negative,
 * running time inside the interval.
 */
export function judgeValues(sample: Sample, nowMs: number): RejectionReason | undefined {
  const { startMs, endMs } = sample;
  if (startMs < earliestMs || endMs <= startMs) return "INTERVAL_INVALID";
  const durationMs = endMs - startMs;
  if (durationMs > intervalMsMax) return "INTERVAL_INVALID";
  if (endMs > nowMs + futureToleranceMs) return "TIME_IN_FUTURE";
  const hasNegative =
    sample.runningMs < 0n ||
    sample.cpuUsageUs < 0n ||
    sample.memoryByteMs < 0n ||
    sample.memoryMaxBytes < 0n ||
    sample.diskByteMs < 0n ||
    sample.diskMaxBytes < 0n ||
    sample.guestInBytes < 0n ||
    sample.guestOutBytes < 0n ||
    sample.ioReadBytes < 0n ||
    sample.ioWriteBytes < 0n;
  if (hasNegative || sample.runningMs > durationMs || sample.sampleCount < 1) return "VALUE_OUT_OF_RANGE";
  const { sampleCount, cores, memoryMb, diskGb, cpuMaxBasisPoints } = sample;
  if (Math.max(sampleCount, cores, memoryMb, diskGb, cpuMaxBasisPoints) > integerMax) return "VALUE_OUT_OF_RANGE";
  if (sample.incarnation.length > incarnationLengthMax || sample.incarnation.includes("\0"))
    return "INCARNATION_INVALID";
  return undefined;
}

/** Whether the pod was on the node during the whole sample, give or take a minute. */
export function isWithinStay(sample: Sample, stays: readonly Stay[] | undefined): boolean {
  if (stays === undefined) return false;
  const startMs = Number(sample.startMs);
  const endMs = Number(sample.endMs);
  return stays.some((stay) => startMs >= stay.fromMs - stayToleranceMs && endMs <= stay.toMs + stayToleranceMs);
}

/** Why a sample is not counted for the pod on the node, or undefined when it counts. */
export function judgeSample(
  sample: Sample,
  isNodeRemoved: boolean,
  stays: readonly Stay[] | undefined,
  nowMs: number,
): RejectionReason | undefined {
  if (isNodeRemoved) return "NODE_REMOVED";
  return judgeValues(sample, nowMs) ?? (isWithinStay(sample, stays) ? undefined : "POD_NOT_PLACED_HERE");
}

/** Starts of the first and the last UTC hour that an interval touches, ms. */
export function hoursTouched(startMs: number, endMs: number): { readonly from: number; readonly to: number } {
  return { from: startMs - (startMs % hourLengthMs), to: endMs - 1 - ((endMs - 1) % hourLengthMs) };
}
