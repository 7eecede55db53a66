import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Sample, SampleAcks, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type DisciplinedClock, createDisciplinedClock } from "../clock/disciplined-clock.ts";
import { type OfferedBatch, type Spool, openSpool } from "./spool.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** 10:00 UTC of some day. */
const TEN_OCLOCK_MS = 1_700_042_400_000;
const LARGE = 1e9;

let folder: string;
let path: string;
let host: { bootId: string; monotonicMs: number; wallMs: number };
let clock: DisciplinedClock;
let warnings: string[];
const opened: Spool[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "spool-"));
  path = join(folder, "spool.db");
  warnings = [];
  boot("boot-1");
});

afterEach(() => {
  for (const spool of opened.splice(0)) spool.close();
  rmSync(folder, { recursive: true });
});

function boot(bootId: string, wallMs = TEN_OCLOCK_MS): void {
  host = { bootId, monotonicMs: 1000, wallMs };
  restartAgent();
}

/** A new process of the agent on the same boot: its clock knows nothing yet. */
function restartAgent(): void {
  const now = host;
  clock = createDisciplinedClock({ bootId: now.bootId, monotonicMs: () => now.monotonicMs, wallMs: () => now.wallMs });
}

/** The control plane says what time it is. */
function contact(serverTimeMs: number): void {
  const at = host.monotonicMs;
  clock.recordExchange({ sentMonotonicMs: at, receivedMonotonicMs: at, serverTimeMs });
}

function open(limitBytes = LARGE): Spool {
  const log = { warn: (_: object, message: string) => warnings.push(message) };
  const spool = openSpool({ path, clock, limitBytes, log });
  opened.push(spool);
  return spool;
}

function close(spool: Spool): void {
  opened.splice(opened.indexOf(spool), 1);
  spool.close();
}

function pass(ms: number): void {
  host.monotonicMs += ms;
  host.wallMs += ms;
}

/** A tick that ends now with one sample a pod. */
function tick(spool: Spool, options: { pods?: number; lengthMs?: number } = {}): void {
  const { pods = 1, lengthMs = MINUTE_MS } = options;
  pass(lengthMs);
  const toMs = host.monotonicMs;
  spool.append({
    samples: Array.from({ length: pods }, (_, index) => sampleOf(`pod-${index}`, toMs - lengthMs, toMs)),
    coversFromMonotonicMs: toMs - lengthMs,
    coversToMonotonicMs: toMs,
    unreadableVmids: [],
    samplerState: Buffer.from(`state at ${toMs}`),
  });
}

function sampleOf(podId: string, fromMs: number, toMs: number): Sample {
  return Sample.fromPartial({
    podId,
    vmid: 100_001,
    startMs: BigInt(fromMs),
    endMs: BigInt(toMs),
    runningMs: BigInt(toMs - fromMs),
    cpuUsageUs: 2n ** 53n + 1n,
    memoryByteMs: 7n,
    guestInBytes: 3n,
    sampleCount: 1,
    incarnation: "i",
  });
}

function decode(offers: readonly OfferedBatch[]): SampleBatch[] {
  return offers.map(({ payload }) => SampleBatch.decode(payload));
}

function ack(spool: Spool, contiguousSeq: bigint, ...ranges: { from: bigint; to: bigint }[]): void {
  spool.acknowledge(SampleAcks.fromPartial({ spoolId: spool.spoolId(), contiguousSeq, ranges }));
}

/** Takes and acknowledges until nothing is offered any more. */
function drain(spool: Spool): SampleBatch[] {
  const all: SampleBatch[] = [];
  for (;;) {
    const batches = decode(spool.takeOffers());
    if (batches.length === 0) return all;
    all.push(...batches);
    for (const { seqFrom, seqTo } of batches) ack(spool, 0n, { from: seqFrom, to: seqTo });
  }
}

function online(limitBytes = LARGE): Spool {
  contact(TEN_OCLOCK_MS);
  const spool = open(limitBytes);
  spool.startSession(-1n);
  return spool;
}

test("a tick is offered with absolute times, and is gone once it is acknowledged", () => {
  const spool = online();
  tick(spool);
  expect(spool.status()).toMatchObject({ depth: 1, oldestEndMs: TEN_OCLOCK_MS + MINUTE_MS });
  const [batch] = decode(spool.takeOffers());
  expect(batch).toMatchObject({
    spoolId: spool.spoolId(),
    seqFrom: 1n,
    seqTo: 1n,
    lowestUnackedSeq: 1n,
    bootId: "boot-1",
    coversFromMs: BigInt(TEN_OCLOCK_MS),
    coversToMs: BigInt(TEN_OCLOCK_MS + MINUTE_MS),
    completeUntilMs: BigInt(TEN_OCLOCK_MS + MINUTE_MS),
    unsynchronised: false,
    samples: [{ endMs: BigInt(TEN_OCLOCK_MS + MINUTE_MS), cpuUsageUs: 2n ** 53n + 1n }],
  });
  ack(spool, 1n);
  expect(spool.status()).toMatchObject({ depth: 0, oldestEndMs: 0 });
  expect([spool.ackedSeq(), spool.nextSeq()]).toEqual([1n, 2n]);
});

test("nothing is offered before a session, nor before this boot's clock was learned", () => {
  host.wallMs -= 10 * HOUR_MS;
  const spool = open();
  tick(spool);
  contact(TEN_OCLOCK_MS);
  expect(spool.takeOffers()).toEqual([]);
  close(spool);

  restartAgent();
  const second = open();
  second.startSession(-1n);
  expect(clock.isSynchronised()).toBe(false);
  expect(second.takeOffers()).toEqual([]);
  contact(TEN_OCLOCK_MS);
  const [batch] = decode(second.takeOffers());
  expect(batch).toMatchObject({ coversToMs: BigInt(TEN_OCLOCK_MS), unsynchronised: false });
});

test("what is learned about the clock survives the agent, but not the boot", () => {
  const spool = online();
  tick(spool);
  close(spool);
  host.wallMs += HOUR_MS;
  restartAgent();
  close(open());
  expect(clock.epochMs()).toBe(TEN_OCLOCK_MS + MINUTE_MS);
  boot("boot-2");
  close(open());
  expect(clock.isSynchronised()).toBe(false);
});

test("a boot that ended before any contact keeps the wall clock's times and says so", () => {
  const lonely = open();
  tick(lonely);
  close(lonely);
  boot("boot-2", TEN_OCLOCK_MS + HOUR_MS);
  const spool = open();
  contact(TEN_OCLOCK_MS + 2 * HOUR_MS);
  spool.startSession(-1n);
  tick(spool);
  const batches = decode(spool.takeOffers());
  expect(batches).toMatchObject([
    { bootId: "boot-1", unsynchronised: true, coversToMs: BigInt(TEN_OCLOCK_MS + MINUTE_MS) },
    { bootId: "boot-2", unsynchronised: false },
  ]);
});

test("at most eight are on offer, oldest first, and an acknowledgement makes room", () => {
  const spool = online();
  for (let count = 0; count < 20; count += 1) tick(spool);
  const seqs = (): bigint[] => spool.takeOffers().map(({ seqFrom }) => seqFrom);
  expect(seqs()).toEqual([1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n]);
  expect(seqs()).toEqual([]);
  ack(spool, 2n, { from: 5n, to: 5n });
  expect(seqs()).toEqual([9n, 10n, 11n]);
  expect(spool.ackedSeq()).toBe(2n);
});

test("an unanswered batch is offered again as the very same, though the clock was corrected", () => {
  const spool = online();
  tick(spool);
  const [first] = spool.takeOffers();
  pass(29_999);
  expect(spool.takeOffers()).toEqual([]);
  contact(TEN_OCLOCK_MS + HOUR_MS);
  pass(1);
  expect(spool.takeOffers()).toEqual([first]);
  pass(30_000);
  expect(spool.takeOffers()).toEqual([]);
  spool.retryNow();
  expect(spool.takeOffers()).toEqual([first]);
  close(spool);
  restartAgent();
  const second = open();
  second.startSession(0n);
  expect(second.takeOffers()).toEqual([first]);
});

test("acknowledgements count for whole batches of this spool that were offered", () => {
  const spool = online();
  tick(spool);
  tick(spool);
  spool.takeOffers();
  spool.acknowledge(SampleAcks.fromPartial({ spoolId: "another", contiguousSeq: 2n }));
  ack(spool, 0n, { from: 3n, to: 9n });
  expect(spool.status().depth).toBe(2);
  tick(spool);
  ack(spool, 3n);
  expect(spool.status().depth).toBe(1);
});

test("a control plane restored from a backup gets again what it lost, and nothing passes for lost", () => {
  const spool = online();
  for (let count = 0; count < 5; count += 1) tick(spool);
  const sent = decode(spool.takeOffers());
  ack(spool, 5n);
  tick(spool);
  // Before the session says so, nobody knows: the header must not declare the rest lost.
  const [newest] = decode(spool.takeOffers());
  expect(newest).toMatchObject({ seqFrom: 6n, lowestUnackedSeq: 1n });
  spool.startSession(2n);
  expect(decode(spool.takeOffers())).toEqual(sent.slice(2));
});

test("acknowledged batches stay 72 hours, unless space is short", () => {
  const spool = online();
  tick(spool);
  drain(spool);
  pass(72 * HOUR_MS - 2 * MINUTE_MS);
  tick(spool);
  spool.startSession(0n);
  expect(drain(spool).map(({ seqFrom }) => seqFrom)).toEqual([1n, 2n]);
  pass(72 * HOUR_MS);
  tick(spool);
  spool.startSession(0n);
  expect(decode(spool.takeOffers())).toMatchObject([{ seqFrom: 3n, lowestUnackedSeq: 3n }]);
});

test("a file put back from a snapshot begins a new spool with what came after it", () => {
  let spool = online();
  for (let count = 0; count < 3; count += 1) tick(spool);
  spool.takeOffers();
  ack(spool, 2n);
  const oldId = spool.spoolId();
  close(spool);
  copyFileSync(path, `${path}.snapshot`);

  spool = open();
  spool.startSession(2n);
  for (let count = 0; count < 5; count += 1) tick(spool);
  drain(spool);
  close(spool);

  rmSync(path);
  copyFileSync(`${path}.snapshot`, path);
  boot("boot-2", TEN_OCLOCK_MS + HOUR_MS);
  contact(TEN_OCLOCK_MS + HOUR_MS);
  spool = open();
  tick(spool);
  close(spool);
  restartAgent();
  spool = open();
  tick(spool);
  spool.startSession(8n);
  expect(spool.spoolId()).not.toBe(oldId);
  const batches = drain(spool);
  expect(batches).toMatchObject([
    {
      spoolId: spool.spoolId(),
      seqFrom: 1n,
      bootId: "boot-2",
      coversToMs: BigInt(TEN_OCLOCK_MS + HOUR_MS + MINUTE_MS),
    },
    { spoolId: spool.spoolId(), seqFrom: 2n, bootId: "boot-2" },
  ]);
  expect(warnings).toContain("the spool file is an old copy: a new spool id was begun");
});

test("an old copy is recognised although it has ticked up to the watermark, and loses nothing of that", () => {
  let spool = online();
  for (let count = 0; count < 99; count += 1) tick(spool);
  drain(spool);
  const oldId = spool.spoolId();
  close(spool);
  copyFileSync(path, `${path}.snapshot`);

  spool = open();
  spool.startSession(99n);
  tick(spool);
  expect(drain(spool)).toMatchObject([{ seqFrom: 100n }]);
  close(spool);

  rmSync(path);
  copyFileSync(`${path}.snapshot`, path);
  restartAgent();
  contact(host.wallMs);
  spool = open();
  expect(spool.nextSeq()).toBe(100n);
  tick(spool);
  const endMs = BigInt(host.wallMs);
  spool.startSession(100n);
  expect(spool.spoolId()).not.toBe(oldId);
  expect(drain(spool)).toMatchObject([{ spoolId: spool.spoolId(), seqFrom: 1n, samples: [{ endMs }] }]);
});

test("a large tick becomes several batches, of which only the last covers the time", () => {
  const spool = online();
  tick(spool);
  tick(spool, { pods: 9000 });
  const [, ...parts] = decode(spool.takeOffers());
  expect(parts.length).toBeGreaterThan(1);
  expect(parts.flatMap(({ samples }) => samples).length).toBe(9000);
  const covers = parts.map(({ coversFromMs, coversToMs }) => Number(coversToMs - coversFromMs));
  expect(covers.pop()).toBe(MINUTE_MS);
  expect(covers.every((length) => length === 0)).toBe(true);
  expect(parts[0]?.completeUntilMs).toBe(BigInt(TEN_OCLOCK_MS + MINUTE_MS));
  expect(parts.at(-1)?.completeUntilMs).toBe(BigInt(TEN_OCLOCK_MS + 2 * MINUTE_MS));
});

test("over its limit the spool sheds resolution and not one unit of usage", () => {
  const spool = online(100_000);
  for (let count = 0; count < 12; count += 1) tick(spool, { pods: 10 });
  const offered = spool.takeOffers();
  const ticks = 12 + 600;
  for (let count = 12; count < ticks; count += 1) tick(spool, { pods: 10 });
  expect(spool.status().isOverLimit).toBe(false);
  expect(spool.status().bytes).toBeLessThan(200_000);

  spool.retryNow();
  const batches = drain(spool);
  // What was ever offered keeps its identity and its content.
  expect(batches.slice(0, 8)).toEqual(decode(offered));
  expect(batches.length).toBeLessThan(200);
  batches.reduce((expected, { seqFrom, seqTo }) => {
    expect(seqFrom).toBe(expected);
    return seqTo + 1n;
  }, 1n);
  const samples = batches.flatMap((batch) => batch.samples);
  expect(samples.reduce((sum, sample) => sum + sample.cpuUsageUs, 0n)).toBe(BigInt(ticks) * 10n * (2n ** 53n + 1n));
  expect(samples.reduce((sum, sample) => sum + sample.sampleCount, 0)).toBe(ticks * 10);
  expect(samples.reduce((sum, sample) => sum + sample.runningMs, 0n)).toBe(BigInt(ticks * 10 * MINUTE_MS));
  for (const { startMs, endMs } of samples) {
    expect(startMs / BigInt(HOUR_MS)).toBe((endMs - 1n) / BigInt(HOUR_MS));
  }
  const resolutions = new Set(samples.map(({ sampleCount }) => sampleCount));
  expect([...resolutions].some((count) => count > 5)).toBe(true);
  expect(Math.max(...resolutions)).toBeLessThanOrEqual(60);
});

test("when nothing may be merged the limit gives way and says so", () => {
  const spool = open(50_000);
  for (let count = 0; count < 100; count += 1) tick(spool, { pods: 10 });
  expect(spool.status()).toMatchObject({ depth: 100, isOverLimit: true });
  contact(host.wallMs);
  spool.startSession(-1n);
  const batches = drain(spool);
  expect(batches.flatMap(({ samples }) => samples).length).toBe(1000);
});

test("an unreadable file is set aside and a new spool begun", () => {
  writeFileSync(path, "this is not a database, whatever its name says. ".repeat(100));
  const spool = online();
  tick(spool);
  expect(spool.takeOffers().length).toBe(1);
  expect(readdirSync(folder)).toContain("spool.db.corrupt-1");
});

test("the sampler's memory is what the last stored tick left", () => {
  const spool = online();
  expect(spool.samplerState()).toBeUndefined();
  tick(spool);
  const state = Buffer.from(`state at ${host.monotonicMs}`);
  close(spool);
  expect(Buffer.from(open().samplerState() ?? [])).toEqual(state);
});
