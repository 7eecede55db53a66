import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { batchOf, payloadOf, sampleOf } from "../../../test/support/telemetry-fleet.ts";
import { readSamplesMessage } from "./read-message.ts";

const spoolId = "0198a3f0-0000-4000-8000-00000000000a";
const pod = { podId: "0198a3f0-0000-7000-8000-000000000001", vmid: 100_000, tenantId: "" };
const node = { nodeId: "0198a3f0-0000-7000-8000-000000000002", pods: [pod] };
const batch = batchOf(node, spoolId, { from: 5, to: 7 }, Date.UTC(2026, 0, 31), {
  samples: [sampleOf(pod, Date.UTC(2026, 0, 31))],
});
const payload = payloadOf(batch);

describe("readSamplesMessage", () => {
  test("reads a batch as it was written", () => {
    expect(readSamplesMessage(payload)).toEqual({
      batch,
      header: { spoolId, seqFrom: 5n, seqTo: 7n, lowestUnackedSeq: 1n },
    });
  });

  test("knows the batch of a payload that is cut in its samples", () => {
    const cut = readSamplesMessage(payload.subarray(0, payload.length - 20));
    expect(cut).toMatchObject({
      batch: undefined,
      reason: "MALFORMED_PROTOBUF",
      header: { spoolId, seqFrom: 5n, seqTo: 7n },
    });
  });

  test("a spool without an id cannot be acknowledged", () => {
    expect(readSamplesMessage(payloadOf({ ...batch, spoolId: "mine" }))).toMatchObject({
      batch: undefined,
      header: undefined,
      reason: "SPOOL_ID_INVALID",
    });
  });

  test("never throws, whatever bytes come", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(readSamplesMessage(bytes)).toBeDefined();
      }),
      { numRuns: 1_000 },
    );
    fc.assert(
      fc.property(fc.nat(payload.length - 1), fc.nat(255), (at, value) => {
        const damaged = Uint8Array.from(payload);
        damaged[at] = value;
        expect(readSamplesMessage(damaged)).toBeDefined();
      }),
      { numRuns: 1_000 },
    );
  });
});
