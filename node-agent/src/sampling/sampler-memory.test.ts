import fc from "fast-check";
import { expect, test } from "vitest";
import type { Reading } from "./sample-interval.ts";
import { type SamplerMemory, beforeOf, decodeMemory, encodeMemory } from "./sampler-memory.ts";

const counter = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const reading: fc.Arbitrary<Reading> = fc.record({
  atMs: fc.nat(),
  initStartTicks: counter,
  startedAtMs: fc.integer(),
  cpuUsageUs: counter,
  memoryBytes: counter,
  diskBytes: counter,
  ioReadBytes: counter,
  ioWriteBytes: counter,
  ioDevice: fc.string(),
  interfaces: fc.array(
    fc.record({ name: fc.string(), ifindex: fc.nat(), guestInBytes: counter, guestOutBytes: counter }),
    { maxLength: 3 },
  ),
});
const known = fc.record({
  podId: fc.uuid(),
  knownUntilMs: fc.nat(),
  reading: fc.option(reading, { nil: undefined }),
});
const memory: fc.Arbitrary<SamplerMemory> = fc.record({
  bootId: fc.constant("boot-1"),
  lookedAtMs: fc.option(fc.nat(), { nil: undefined }),
  coveredToMs: fc.option(fc.nat(), { nil: undefined }),
  containers: fc.array(fc.tuple(fc.nat(), known)).map((entries) => new Map(entries)),
});

test("what is stored is what is remembered", () => {
  fc.assert(
    fc.property(memory, (stored) => {
      expect(decodeMemory(encodeMemory(stored), "boot-1")).toEqual(stored);
    }),
  );
});

test("after a boot every run is new; without any memory none is", () => {
  fc.assert(
    fc.property(memory, (stored) => {
      const fresh = decodeMemory(encodeMemory(stored), "boot-2");
      expect(fresh).toMatchObject({ bootId: "boot-2", coveredToMs: undefined });
      expect(beforeOf(fresh, 100_001, "p", 5000)).toEqual({ reading: undefined, knownUntilMs: 0 });
    }),
  );
  const nothing = decodeMemory(undefined, "boot-1");
  expect(beforeOf(nothing, 100_001, "p", 5000)).toEqual({ reading: undefined, knownUntilMs: 5000 });
});

test("a memory that is not understood is none", () => {
  expect(decodeMemory(Buffer.from("nonsense"), "boot-1").lookedAtMs).toBeUndefined();
  expect(decodeMemory(new Uint8Array(), "boot-1").containers.size).toBe(0);
});

test("a container that changed hands is not compared with its former pod's readings", () => {
  const containers = new Map([[100_001, { podId: "p", knownUntilMs: 3000, reading: undefined }]]);
  const remembered: SamplerMemory = { bootId: "b", lookedAtMs: 4000, coveredToMs: 4000, containers };
  expect(beforeOf(remembered, 100_001, "p", 5000).knownUntilMs).toBe(3000);
  expect(beforeOf(remembered, 100_001, "q", 5000).knownUntilMs).toBe(4000);
});
