import type { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";

/** Usage hours are UTC; a price may change at each, so no sample is made to cross one. */
export const HOUR_MS = 3_600_000n;

/**
 * Two neighbouring samples as one with exactly the same sums, or undefined when they must stay
 * apart: another pod, run or allocation, a gap between them, or an hour boundary inside.
 */
export function mergeSamples(first: Sample, second: Sample): Sample | undefined {
  if (!isSameRun(first, second) || first.endMs !== second.startMs) return undefined;
  // The end is exclusive: a sample that ends with the hour lies inside it.
  if (first.startMs / HOUR_MS !== (second.endMs - 1n) / HOUR_MS) return undefined;
  return {
    ...first,
    endMs: second.endMs,
    runningMs: first.runningMs + second.runningMs,
    cpuUsageUs: first.cpuUsageUs + second.cpuUsageUs,
    cpuMaxBasisPoints: Math.max(first.cpuMaxBasisPoints, second.cpuMaxBasisPoints),
    memoryByteMs: first.memoryByteMs + second.memoryByteMs,
    memoryMaxBytes: larger(first.memoryMaxBytes, second.memoryMaxBytes),
    diskByteMs: first.diskByteMs + second.diskByteMs,
    diskMaxBytes: larger(first.diskMaxBytes, second.diskMaxBytes),
    guestInBytes: first.guestInBytes + second.guestInBytes,
    guestOutBytes: first.guestOutBytes + second.guestOutBytes,
    ioReadBytes: first.ioReadBytes + second.ioReadBytes,
    ioWriteBytes: first.ioWriteBytes + second.ioWriteBytes,
    sampleCount: first.sampleCount + second.sampleCount,
  };
}

/**
 * Two batches, the second numbered right after the first, as one that stands for both; undefined
 * when that would hide something: a time that nobody looked at, or which container could not be read
 * when. Times must be absolute.
 */
export function mergeBatches(first: SampleBatch, second: SampleBatch): SampleBatch | undefined {
  if (first.spoolId !== second.spoolId || first.bootId !== second.bootId) return undefined;
  if (first.unsynchronised !== second.unsynchronised) return undefined;
  if (first.seqTo + 1n !== second.seqFrom) return undefined;
  const cover = mergeCovers(first, second);
  if (cover === undefined) return undefined;
  return {
    ...first,
    ...cover,
    seqTo: second.seqTo,
    completeUntilMs: larger(first.completeUntilMs, second.completeUntilMs),
    samples: mergeRuns([...first.samples, ...second.samples]),
  };
}

type Cover = Pick<SampleBatch, "coversFromMs" | "coversToMs" | "unreadableVmids">;

/** A batch without cover speaks of single containers only, and never stands in the way. */
function mergeCovers(first: SampleBatch, second: SampleBatch): Cover | undefined {
  if (second.coversFromMs === second.coversToMs) return coverOf(first);
  if (first.coversFromMs === first.coversToMs) return coverOf(second);
  if (first.coversToMs !== second.coversFromMs) return undefined;
  if (!isSameSet(first.unreadableVmids, second.unreadableVmids)) return undefined;
  return { ...coverOf(first), coversToMs: second.coversToMs };
}

function coverOf({ coversFromMs, coversToMs, unreadableVmids }: SampleBatch): Cover {
  return { coversFromMs, coversToMs, unreadableVmids };
}

/** Folds each pod's samples, in their order, into as few as may be. */
function mergeRuns(samples: readonly Sample[]): Sample[] {
  const merged: Sample[] = [];
  const lastOfPod = new Map<string, number>();
  for (const sample of samples) {
    const at = lastOfPod.get(sample.podId);
    const before = at === undefined ? undefined : merged[at];
    const both = before === undefined ? undefined : mergeSamples(before, sample);
    if (at !== undefined && both !== undefined) {
      merged[at] = both;
    } else {
      lastOfPod.set(sample.podId, merged.push(sample) - 1);
    }
  }
  return merged;
}

function isSameRun(first: Sample, second: Sample): boolean {
  return (
    first.podId === second.podId &&
    first.vmid === second.vmid &&
    first.incarnation === second.incarnation &&
    first.cores === second.cores &&
    first.memoryMb === second.memoryMb &&
    first.diskGb === second.diskGb
  );
}

function isSameSet(first: readonly number[], second: readonly number[]): boolean {
  const members = new Set(first);
  return members.size === new Set(second).size && second.every((member) => members.has(member));
}

function larger(first: bigint, second: bigint): bigint {
  return first > second ? first : second;
}
