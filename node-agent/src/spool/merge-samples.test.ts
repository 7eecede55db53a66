import { Sample, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import fc from "fast-check";
import { expect, test } from "vitest";
import { HOUR_MS, mergeBatches, mergeSamples } from "./merge-samples.ts";

const HOUR_START_MS = 472_222n * HOUR_MS;
const SUMS = [
  "runningMs",
  "cpuUsageUs",
  "memoryByteMs",
  "diskByteMs",
  "guestInBytes",
  "guestOutBytes",
  "ioReadBytes",
  "ioWriteBytes",
] as const;

const counter = fc.bigInt({ min: 0n, max: 2n ** 60n });

/** Neighbouring samples of one container, some of which belong to other runs, sizes or hours. */
const history: fc.Arbitrary<Sample[]> = fc
  .array(
    fc.record({
      gapMs: fc.constantFrom(0n, 0n, 0n, 1n, 5000n),
      lengthMs: fc.bigInt({ min: 1n, max: 1_200_000n }),
      incarnation: fc.constantFrom("a", "a", "a", "b"),
      cores: fc.constantFrom(2, 2, 2, 4),
      podId: fc.constantFrom("p", "p", "q"),
      values: fc.record(Object.fromEntries(SUMS.map((name) => [name, counter]))),
      maxima: fc.tuple(fc.nat(20_000), counter, counter),
    }),
    { maxLength: 40 },
  )
  .map((parts) => {
    let atMs = HOUR_START_MS;
    return parts.map(({ gapMs, lengthMs, incarnation, cores, podId, values, maxima }) => {
      const startMs = atMs + gapMs;
      atMs = startMs + lengthMs;
      const [cpuMaxBasisPoints, memoryMaxBytes, diskMaxBytes] = maxima;
      return Sample.fromPartial({
        ...values,
        podId,
        vmid: 100_001,
        startMs,
        endMs: atMs,
        cpuMaxBasisPoints,
        memoryMaxBytes,
        diskMaxBytes,
        sampleCount: 1,
        incarnation,
        cores,
      });
    });
  });

function batchesOf(samples: readonly Sample[]): SampleBatch[] {
  return samples.map((sample, index) =>
    SampleBatch.fromPartial({
      spoolId: "s",
      bootId: "b",
      seqFrom: BigInt(index + 1),
      seqTo: BigInt(index + 1),
      coversFromMs: BigInt(index),
      coversToMs: BigInt(index + 1),
      completeUntilMs: BigInt(index + 1),
      samples: [sample],
    }),
  );
}

function mergeAll(batches: readonly SampleBatch[]): SampleBatch {
  return batches.reduce((first, second) => {
    const merged = mergeBatches(first, second);
    if (merged === undefined) throw new Error("the batches were not merged");
    return merged;
  });
}

function sumOf(samples: readonly Sample[], name: (typeof SUMS)[number] | "sampleCount"): bigint {
  return samples.reduce((sum, sample) => sum + BigInt(sample[name]), 0n);
}

test("merging keeps every sum and every maximum of each pod", () => {
  fc.assert(
    fc.property(history, (samples) => {
      fc.pre(samples.length > 0);
      const merged = mergeAll(batchesOf(samples));
      expect(merged.samples.length).toBeLessThanOrEqual(samples.length);
      for (const podId of ["p", "q"]) {
        const before = samples.filter((sample) => sample.podId === podId);
        const after = merged.samples.filter((sample) => sample.podId === podId);
        for (const name of [...SUMS, "sampleCount"] as const) {
          expect(sumOf(after, name)).toBe(sumOf(before, name));
        }
        const highest = (all: readonly Sample[]): number =>
          Math.max(0, ...all.map((sample) => sample.cpuMaxBasisPoints));
        expect(highest(after)).toBe(highest(before));
      }
    }),
  );
});

test("no merged sample hides a gap, a restart, another size or the end of an hour", () => {
  fc.assert(
    fc.property(history, (samples) => {
      fc.pre(samples.length > 0);
      for (const merged of mergeAll(batchesOf(samples)).samples) {
        const parts = samples.filter(
          ({ podId, startMs, endMs }) => podId === merged.podId && startMs >= merged.startMs && endMs <= merged.endMs,
        );
        expect(new Set(parts.map(({ incarnation }) => incarnation)).size).toBe(1);
        expect(new Set(parts.map(({ cores }) => cores)).size).toBe(1);
        const measuredMs = parts.reduce((sum, { startMs, endMs }) => sum + (endMs - startMs), 0n);
        expect(measuredMs).toBe(merged.endMs - merged.startMs);
        const isInOneHour = merged.startMs / HOUR_MS === (merged.endMs - 1n) / HOUR_MS;
        expect(parts.length === 1 || isInOneHour).toBe(true);
      }
    }),
  );
});

const first = Sample.fromPartial({
  podId: "p",
  vmid: 100_001,
  startMs: HOUR_START_MS,
  endMs: HOUR_START_MS + 60_000n,
  incarnation: "a",
  cores: 2,
  memoryMb: 512,
  diskGb: 8,
});
const second = { ...first, startMs: first.endMs, endMs: first.endMs + 60_000n };

test("neighbours of one run become one", () => {
  const merged = mergeSamples(first, second);
  expect(merged).toMatchObject({ startMs: first.startMs, endMs: second.endMs });
});

test.each([
  ["another run", { incarnation: "b" }],
  ["another size", { memoryMb: 1024 }],
  ["another pod", { podId: "q" }],
  ["another container", { vmid: 100_002 }],
  ["a gap", { startMs: second.startMs + 1n }],
  ["an overlap", { startMs: second.startMs - 1n }],
  ["the next hour", { endMs: HOUR_START_MS + HOUR_MS + 1n }],
])("%s is refused", (_, change) => {
  expect(mergeSamples(first, { ...second, ...change })).toBeUndefined();
});

test("a sample that ends with the hour still belongs to it", () => {
  const last = { ...second, endMs: HOUR_START_MS + HOUR_MS };
  expect(mergeSamples(first, last)?.endMs).toBe(HOUR_START_MS + HOUR_MS);
});

const batch = SampleBatch.fromPartial({
  spoolId: "s",
  bootId: "b",
  seqFrom: 1n,
  seqTo: 1n,
  coversFromMs: 10n,
  coversToMs: 20n,
  completeUntilMs: 20n,
  unreadableVmids: [7],
});
const next = { ...batch, seqFrom: 2n, seqTo: 3n, coversFromMs: 20n, coversToMs: 30n, completeUntilMs: 30n };

test("neighbouring batches become one that names all their numbers", () => {
  expect(mergeBatches(batch, next)).toMatchObject({
    seqFrom: 1n,
    seqTo: 3n,
    coversFromMs: 10n,
    coversToMs: 30n,
    completeUntilMs: 30n,
    unreadableVmids: [7],
  });
});

test.each([
  ["another spool", { spoolId: "t" }],
  ["another boot", { bootId: "c" }],
  ["a hole in the numbers", { seqFrom: 3n }],
  ["a time that nobody looked at", { coversFromMs: 21n }],
  ["other unreadable containers", { unreadableVmids: [7, 8] }],
  ["another trust in the times", { unsynchronised: true }],
])("batches with %s stay apart", (_, change) => {
  expect(mergeBatches(batch, { ...next, ...change })).toBeUndefined();
});

test("a batch that covers no time joins either neighbour and changes nothing about the cover", () => {
  const single = { ...next, seqTo: 2n, coversFromMs: 20n, coversToMs: 20n, unreadableVmids: [] };
  expect(mergeBatches(batch, single)).toMatchObject({ coversFromMs: 10n, coversToMs: 20n, unreadableVmids: [7] });
  const follower = { ...next, seqFrom: 3n, seqTo: 3n };
  expect(mergeBatches(single, follower)).toMatchObject({ coversFromMs: 20n, coversToMs: 30n, unreadableVmids: [7] });
});
