import { describe, expect, test } from "vitest";
import { SampleAcks } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { openAcknowledgements } from "./acknowledgements.ts";

const nodeId = "0198a3f0-0000-7000-8000-000000000001";
const ack = (spoolId: string, contiguousSeq: bigint, ranges: { from: bigint; to: bigint }[] = []) => ({
  nodeId,
  spoolId,
  contiguousSeq,
  ranges,
});

describe("openAcknowledgements", () => {
  test("sends each spool's newest state, to its node", async () => {
    const sent: string[] = [];
    let first = Promise.withResolvers<void>();
    const acknowledgements = openAcknowledgements(
      async (topic, payload) => {
        const { spoolId, contiguousSeq } = SampleAcks.decode(payload);
        sent.push(`${topic} ${spoolId} ${contiguousSeq}`);
        await first.promise;
      },
      () => expect.fail("nothing fails"),
    );
    acknowledgements.add([ack("a", 1n)]);
    for (let seq = 2n; seq <= 50n; seq++) acknowledgements.add([ack("a", seq), ack("b", seq)]);
    first.resolve();
    first = Promise.withResolvers();
    first.resolve();
    await acknowledgements.flushed();
    const topic = `cloudpods/v1/nodes/${nodeId}/acks`;
    expect(sent).toContain(`${topic} a 50`);
    expect(sent).toContain(`${topic} b 50`);
    expect(sent.length).toBeLessThan(70);
  });

  test("forgets what the broker does not take", async () => {
    let failures = 0;
    const acknowledgements = openAcknowledgements(
      () => Promise.reject(new Error("no broker")),
      () => failures++,
    );
    acknowledgements.add([ack("a", 1n), ack("b", 1n)]);
    await acknowledgements.flushed();
    expect(failures).toBe(2);
  });

  test("carries ranges, but never more than fit a message", async () => {
    const sizes: number[] = [];
    const acknowledgements = openAcknowledgements(
      async (_topic, payload) => {
        sizes.push(SampleAcks.decode(payload).ranges.length);
      },
      () => expect.fail("nothing fails"),
    );
    const ranges = Array.from({ length: 5_000 }, (_, index) => ({
      from: BigInt(2 * index + 5),
      to: BigInt(2 * index + 5),
    }));
    acknowledgements.add([ack("a", 1n, ranges)]);
    await acknowledgements.flushed();
    expect(sizes).toEqual([1_000]);
  });
});
