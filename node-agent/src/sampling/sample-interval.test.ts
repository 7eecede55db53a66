import type { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Before, type Reading, cutLongInterval, sampleInterval } from "./sample-interval.ts";

const BOOT = "1f3a9c02-aaaa-bbbb-cccc-0123456789ab";
const pod = {
  podId: "2b8c6f9e-0000-7000-8000-000000000001",
  vmid: 100_001,
  allocation: { cores: 2, memoryMb: 512, diskGb: 8 },
};
const reading: Reading = {
  atMs: 60_000,
  initStartTicks: 1000n,
  startedAtMs: 10_000,
  cpuUsageUs: 5_000_000n,
  memoryBytes: 100n,
  diskBytes: 1000n,
  ioReadBytes: 10n,
  ioWriteBytes: 20n,
  ioDevice: "254:5",
  interfaces: [{ name: "veth100001i0", ifindex: 7, guestInBytes: 100n, guestOutBytes: 200n }],
};
const later: Reading = {
  ...reading,
  atMs: 120_000,
  cpuUsageUs: 65_000_000n,
  memoryBytes: 300n,
  diskBytes: 2000n,
  ioReadBytes: 110n,
  ioWriteBytes: 520n,
  interfaces: [{ name: "veth100001i0", ifindex: 7, guestInBytes: 1100n, guestOutBytes: 2200n }],
};

function sampled(before: Before, current: Reading): Sample {
  const result = sampleInterval(pod, before, current, BOOT);
  if (typeof result === "string") throw new Error(`no sample but ${result}`);
  return result;
}

const known = (last: Reading): Before => ({ reading: last, knownUntilMs: last.atMs });
const neverRead = (knownUntilMs: number): Before => ({ reading: undefined, knownUntilMs });

test("inside one run counters count by difference and levels are held over the interval", () => {
  expect(sampled(known(reading), later)).toMatchObject({
    podId: pod.podId,
    vmid: 100_001,
    startMs: 60_000n,
    endMs: 120_000n,
    runningMs: 60_000n,
    cpuUsageUs: 60_000_000n,
    // 60 s of processor in 60 s on two cores.
    cpuMaxBasisPoints: 5000,
    memoryByteMs: 300n * 60_000n,
    memoryMaxBytes: 300n,
    diskByteMs: 2000n * 60_000n,
    diskMaxBytes: 2000n,
    guestInBytes: 1000n,
    guestOutBytes: 2000n,
    ioReadBytes: 100n,
    ioWriteBytes: 500n,
    sampleCount: 1,
    cores: 2,
    memoryMb: 512,
    diskGb: 8,
    incarnation: "1f3a9c02-1000-7",
  });
});

test("a run that began after the last look counts from its start", () => {
  expect(sampled(neverRead(9000), reading)).toMatchObject({
    startMs: 10_000n,
    runningMs: 50_000n,
    cpuUsageUs: 5_000_000n,
    guestInBytes: 100n,
    ioWriteBytes: 20n,
  });
});

test("a run that was under way before anybody looked has no sample yet", () => {
  expect(sampleInterval(pod, neverRead(50_000), reading, BOOT)).toBe("base");
});

test("a restart inside the interval counts the new run whole and nothing of the old one twice", () => {
  const restarted = { ...later, initStartTicks: 7000n, startedAtMs: 90_000, cpuUsageUs: 3_000_000n };
  expect(sampled(known(reading), restarted)).toMatchObject({
    startMs: 90_000n,
    runningMs: 30_000n,
    cpuUsageUs: 3_000_000n,
    guestInBytes: 1100n,
    incarnation: "1f3a9c02-7000-7",
  });
});

test("a restart whose coarse start lies before the last reading begins where that ended", () => {
  const restarted = { ...later, initStartTicks: 5999n, startedAtMs: 59_990 };
  expect(sampled(known(reading), restarted).startMs).toBe(60_000n);
});

test("an interface made anew counts from zero while everything else goes on", () => {
  const [eth0] = later.interfaces;
  if (eth0 === undefined) throw new Error("no interface");
  const renewed = { ...later, interfaces: [{ ...eth0, ifindex: 9, guestInBytes: 40n, guestOutBytes: 5000n }] };
  expect(sampled(known(reading), renewed)).toMatchObject({
    guestInBytes: 40n,
    guestOutBytes: 5000n,
    cpuUsageUs: 60_000_000n,
    incarnation: "1f3a9c02-1000-9",
  });
});

test("two readings of one instant give no sample", () => {
  expect(sampleInterval(pod, known(reading), { ...later, atMs: 60_000 }, BOOT)).toBe("early");
});

test("a run longer than a clock's rounding never gives an empty or backward interval", () => {
  const instant = fc.integer({ min: 0, max: 1_000_000 });
  fc.assert(
    fc.property(instant, instant, instant, fc.boolean(), (lastMs, startedAtMs, atMs, isSameRun) => {
      const before = known({ ...reading, atMs: lastMs });
      const current = { ...later, atMs, startedAtMs, initStartTicks: isSameRun ? 1000n : 2000n };
      const result = sampleInterval(pod, before, current, BOOT);
      if (typeof result === "string") return;
      expect(result.endMs).toBeGreaterThan(result.startMs);
      expect(result.startMs).toBeGreaterThanOrEqual(BigInt(lastMs));
    }),
  );
});

test("an interval of days is cut into believable pieces with the same sums", () => {
  const dayMs = 86_400_000;
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 * dayMs }), (lengthMs) => {
      const sample = sampled(known(reading), { ...later, atMs: reading.atMs + lengthMs });
      const pieces = cutLongInterval(sample);
      expect(pieces[0]?.startMs).toBe(sample.startMs);
      expect(pieces.at(-1)).toMatchObject({ endMs: sample.endMs, cpuUsageUs: sample.cpuUsageUs });
      for (const name of ["runningMs", "memoryByteMs", "diskByteMs", "cpuUsageUs", "guestInBytes"] as const) {
        expect(pieces.reduce((sum, piece) => sum + piece[name], 0n)).toBe(sample[name]);
      }
      expect(pieces.every(({ startMs, endMs }) => endMs - startMs <= BigInt(dayMs / 2))).toBe(true);
      pieces.reduce((startMs, piece) => {
        expect(piece.startMs).toBe(startMs);
        return piece.endMs;
      }, sample.startMs);
    }),
  );
});

/** What a container did between two looks; some looks come after restarts. */
const life = fc.array(
  fc.record({
    lengthMs: fc.integer({ min: 1, max: 120_000 }),
    cpuUs: fc.bigInt({ min: 0n, max: 2n ** 55n }),
    inBytes: fc.bigInt({ min: 0n, max: 2n ** 55n }),
    outBytes: fc.bigInt({ min: 0n, max: 2n ** 55n }),
    writeBytes: fc.bigInt({ min: 0n, max: 2n ** 55n }),
    change: fc.constantFrom("none", "none", "none", "restart", "interface"),
  }),
  { maxLength: 40 },
);

test("over any life the samples sum to what was used, through restarts and across 2^53", () => {
  fc.assert(
    fc.property(life, (steps) => {
      let before = neverRead(0);
      let nowMs = 1000;
      let run = { ticks: 100n, ifindex: 1, cpuUs: 0n, inBytes: 0n, outBytes: 0n, writeBytes: 0n, startedAtMs: 1000 };
      const used = { cpuUs: 0n, inBytes: 0n, outBytes: 0n, writeBytes: 0n };
      const metered = { cpuUs: 0n, inBytes: 0n, outBytes: 0n, writeBytes: 0n };
      for (const step of steps) {
        if (step.change === "restart") {
          const zero = { cpuUs: 0n, inBytes: 0n, outBytes: 0n, writeBytes: 0n };
          run = { ...zero, ticks: run.ticks + 1n, ifindex: run.ifindex + 1, startedAtMs: nowMs };
        }
        if (step.change === "interface") run = { ...run, ifindex: run.ifindex + 1, inBytes: 0n, outBytes: 0n };
        nowMs += step.lengthMs;
        for (const name of ["cpuUs", "inBytes", "outBytes", "writeBytes"] as const) {
          run[name] += step[name];
          used[name] += step[name];
        }
        const current: Reading = {
          ...reading,
          atMs: nowMs,
          initStartTicks: run.ticks,
          startedAtMs: run.startedAtMs,
          cpuUsageUs: run.cpuUs,
          ioWriteBytes: run.writeBytes,
          interfaces: [
            { name: "veth100001i0", ifindex: run.ifindex, guestInBytes: run.inBytes, guestOutBytes: run.outBytes },
          ],
        };
        const sample = sampled(before, current);
        metered.cpuUs += sample.cpuUsageUs;
        metered.inBytes += sample.guestInBytes;
        metered.outBytes += sample.guestOutBytes;
        metered.writeBytes += sample.ioWriteBytes;
        before = known(current);
      }
      expect(metered).toEqual(used);
    }),
  );
});
