import { type Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { MAX_MESSAGE_BYTES } from "@cloudpods/shared/topics";

/** Samples that fit one message. */
export interface TickPart {
  readonly samples: Sample[];
  /** The same, encoded as a SampleBatch that says nothing else. */
  readonly encoded: Uint8Array;
}

/** Room for a batch's header, its ids and a few thousand unreadable VMIDs. */
const HEADER_BYTES = 16 * 1024;

/** Parts of a tick's samples, in order; at least one. Encoding is dear, so what is measured is kept to be stored. */
export function splitTick(samples: readonly Sample[]): TickPart[] {
  const batch = { ...SampleBatch.fromPartial({}), samples: [...samples] };
  const encoded = SampleBatch.encode(batch).finish();
  const fits = encoded.length <= MAX_MESSAGE_BYTES - HEADER_BYTES;
  if (fits || samples.length <= 1) return [{ samples: batch.samples, encoded }];
  const middle = Math.ceil(samples.length / 2);
  return [...splitTick(samples.slice(0, middle)), ...splitTick(samples.slice(middle))];
}
