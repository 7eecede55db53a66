import type { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";

/** One instant of a boot in both clocks, ms. */
export interface TimedEnd {
  readonly monotonicMs: bigint;
  readonly epochMs: bigint;
}

/** Key of the sampler's own cover among the ends; no pod has an empty id. */
export const COVER = "";

/**
 * Gives a batch its absolute times. An interval that starts where the last one of its pod ended
 * keeps starting there although the offset may have moved since, so neighbours neither overlap nor
 * leave a gap; any other start is at least not before that end.
 *
 * @param batch with monotonic times of one boot
 * @param offsetMs ms since 1970 minus monotonic ms
 * @param ends the last end of each pod in this boot; brought up to date
 */
export function withAbsoluteTimes(batch: SampleBatch, offsetMs: bigint, ends: Map<string, TimedEnd>): SampleBatch {
  const coversFromMs = startOf(COVER, batch.coversFromMs, offsetMs, ends);
  const isEmptyCover = batch.coversFromMs === batch.coversToMs;
  const coversToMs = isEmptyCover ? coversFromMs : after(coversFromMs, batch.coversToMs + offsetMs);
  ends.set(COVER, { monotonicMs: batch.coversToMs, epochMs: coversToMs });
  const samples = batch.samples.map((sample) => sampleWithAbsoluteTimes(sample, offsetMs, ends));
  return { ...batch, coversFromMs, coversToMs, completeUntilMs: coversToMs, samples };
}

function sampleWithAbsoluteTimes(sample: Sample, offsetMs: bigint, ends: Map<string, TimedEnd>): Sample {
  const startMs = startOf(sample.podId, sample.startMs, offsetMs, ends);
  const endMs = after(startMs, sample.endMs + offsetMs);
  ends.set(sample.podId, { monotonicMs: sample.endMs, epochMs: endMs });
  // A shortened interval cannot hold more running time than itself.
  const lengthMs = endMs - startMs;
  const runningMs = sample.runningMs < lengthMs ? sample.runningMs : lengthMs;
  return { ...sample, startMs, endMs, runningMs };
}

function startOf(key: string, monotonicMs: bigint, offsetMs: bigint, ends: ReadonlyMap<string, TimedEnd>): bigint {
  const last = ends.get(key);
  const startMs = monotonicMs + offsetMs;
  if (last === undefined) return startMs;
  return last.monotonicMs === monotonicMs || startMs < last.epochMs ? last.epochMs : startMs;
}

/** The end of an interval: never its own start, since the end is part of the sample's identity. */
function after(startMs: bigint, endMs: bigint): bigint {
  return endMs > startMs ? endMs : startMs + 1n;
}
