import { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { MAX_MESSAGE_BYTES } from "@cloudpods/shared/topics";

/** Room for a batch's header, its ids and a few thousand unreadable VMIDs. */
const HEADER_BYTES = 16 * 1024;
/** Tag and length that go before each sample inside a batch. */
const FRAME_BYTES = 6;

/** Parts of a tick's samples, in order, each of which fits one message. At least one part. */
export function splitTick(samples: readonly Sample[]): Sample[][] {
  const parts: Sample[][] = [[]];
  let bytes = 0;
  for (const sample of samples) {
    const size = Sample.encode(sample).finish().length + FRAME_BYTES;
    if (bytes + size > MAX_MESSAGE_BYTES - HEADER_BYTES) {
      parts.push([]);
      bytes = 0;
    }
    parts.at(-1)?.push(sample);
    bytes += size;
  }
  return parts;
}
