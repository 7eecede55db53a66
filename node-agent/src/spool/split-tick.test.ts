import { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { MAX_MESSAGE_BYTES } from "@cloudpods/shared/topics";
import fc from "fast-check";
import { expect, test } from "vitest";
import { splitTick } from "./split-tick.ts";

const largest = 2n ** 63n - 1n;
const sampleOf = (length: number): Sample =>
  Sample.fromPartial({ podId: "p".repeat(length), memoryByteMs: largest, incarnation: "i".repeat(length) });

test("every part fits one message and together they are the tick", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(2000).map(sampleOf), { maxLength: 400 }), (samples) => {
      const parts = splitTick(samples);
      expect(parts.flatMap((part) => part.samples)).toEqual(samples);
      for (const part of parts) {
        expect(part.encoded.length).toBeLessThan(MAX_MESSAGE_BYTES);
        expect(SampleBatch.decode(part.encoded).samples).toEqual(part.samples);
      }
    }),
    { numRuns: 30 },
  );
});

test("a tick without samples is still a batch: it says that nothing ran", () => {
  expect(splitTick([])).toEqual([{ samples: [], encoded: new Uint8Array() }]);
});
