import { BinaryReader } from "@bufbuild/protobuf/wire";
import { SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { isUuid } from "@cloudpods/shared/ids";

/** A message of a `samples` topic as it arrived. */
export interface SamplesMessage {
  /** From the topic, which the broker grants to the holder of the node's certificate only. */
  readonly nodeId: string;
  readonly payload: Uint8Array;
}

/** What identifies a batch; readable even when the samples behind it are not. */
export interface BatchHeader {
  readonly spoolId: string;
  readonly seqFrom: bigint;
  readonly seqTo: bigint;
  readonly lowestUnackedSeq: bigint;
}

/** A message that was understood, or why not and what can still be said of it. */
export type ReadMessage =
  | { readonly batch: SampleBatch; readonly header: BatchHeader }
  | {
      readonly batch: undefined;
      readonly header: BatchHeader | undefined;
      readonly reason: "MALFORMED_PROTOBUF" | "SPOOL_ID_INVALID";
      readonly detail: string;
    };

/** Reads the payload of a `samples` message. */
export function readSamplesMessage(payload: Uint8Array): ReadMessage {
  let batch: SampleBatch;
  try {
    batch = SampleBatch.decode(payload);
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    return { batch: undefined, header: readHeader(payload), reason: "MALFORMED_PROTOBUF", detail };
  }
  if (!isUuid(batch.spoolId)) {
    return { batch: undefined, header: undefined, reason: "SPOOL_ID_INVALID", detail: "spool_id is not a UUID" };
  }
  const { seqFrom, seqTo, lowestUnackedSeq } = batch;
  return { batch, header: { spoolId: batch.spoolId.toLowerCase(), seqFrom, seqTo, lowestUnackedSeq } };
}

/**
 * The header of a batch whose samples cannot be read: its fields come first on the wire (telemetry.proto,
 * SampleBatch 1 to 4). Without it the number could never be settled and its sender would offer it for ever.
 */
function readHeader(payload: Uint8Array): BatchHeader | undefined {
  const header = { spoolId: "", seqFrom: 0n, seqTo: 0n, lowestUnackedSeq: 0n };
  try {
    const reader = new BinaryReader(payload);
    while (reader.pos < reader.len) {
      const tag = reader.uint32();
      if (tag === 10) header.spoolId = reader.string().toLowerCase();
      else if (tag === 16) header.seqFrom = BigInt(reader.int64());
      else if (tag === 24) header.seqTo = BigInt(reader.int64());
      else if (tag === 32) header.lowestUnackedSeq = BigInt(reader.int64());
      else break;
    }
  } catch {
    return undefined;
  }
  return isUuid(header.spoolId) && header.seqFrom >= 1n && header.seqTo >= header.seqFrom ? header : undefined;
}
