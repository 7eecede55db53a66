import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Sample, SampleAcks, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createDisciplinedClock } from "../clock/disciplined-clock.ts";
import { type OfferedBatch, type Spool, openSpool } from "./spool.ts";

const MINUTE_MS = 60_000;
const PAGE_BYTES = 4096;
const BATCHES = 24;
let root: string;
let folder: string;
let path: string;
let warnings: object[];
let nowMs = 1_000;
/** A spool of many pages: of its batches six are acknowledged, two more are offered, the rest never was. */
let sound: string;
let spoolId: string;
let offered: readonly OfferedBatch[];

const clock = createDisciplinedClock({ bootId: "boot-1", monotonicMs: () => nowMs });
clock.recordExchange({ sentMonotonicMs: nowMs, receivedMonotonicMs: nowMs, serverTimeMs: 1_700_042_400_000 });

function open(): Spool {
  const log = { warn: (details: object) => void warnings.push(details) };
  return openSpool({ path, clock, limitBytes: 1e9, log });
}

function tick(spool: Spool): void {
  const fromMs = nowMs;
  nowMs += MINUTE_MS;
  const sample = { startMs: BigInt(fromMs), endMs: BigInt(nowMs), runningMs: 60_000n, cpuUsageUs: 7n, sampleCount: 1 };
  spool.append({
    samples: [Sample.fromPartial({ ...sample, podId: "pod", incarnation: "x".repeat(1_000) })],
    coversFromMonotonicMs: fromMs,
    coversToMonotonicMs: nowMs,
    unreadableVmids: [],
    samplerState: Buffer.from(`state at ${nowMs}`),
  });
}

function acknowledge(spool: Spool, batches: readonly OfferedBatch[]): void {
  const ranges = batches.map(({ seqFrom, seqTo }) => ({ from: seqFrom, to: seqTo }));
  spool.acknowledge(SampleAcks.fromPartial({ spoolId: spool.spoolId(), ranges }));
}

function drain(spool: Spool): OfferedBatch[] {
  const all: OfferedBatch[] = [];
  for (;;) {
    const batches = spool.takeOffers();
    if (batches.length === 0) return all;
    all.push(...batches);
    acknowledge(spool, batches);
  }
}

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "salvage-"));
  folder = join(root, "sound");
  mkdirSync(folder);
  path = sound = join(folder, "spool.db");
  warnings = [];
  const spool = open();
  spool.startSession(-1n);
  for (let count = 0; count < BATCHES; count += 1) tick(spool);
  offered = spool.takeOffers();
  acknowledge(spool, offered.slice(0, 6));
  offered = offered.slice(6);
  spoolId = spool.spoolId();
  spool.close();
});

beforeEach(() => {
  folder = mkdtempSync(join(root, "case-"));
  path = join(folder, "spool.db");
  copyFileSync(sound, path);
  warnings = [];
});

afterAll(() => rmSync(root, { recursive: true }));

function spoil(page: number, at = path): void {
  const file = openSync(at, "r+");
  writeSync(file, Buffer.alloc(PAGE_BYTES, 0xa5), 0, PAGE_BYTES, page * PAGE_BYTES);
  closeSync(file);
}

/** What was perhaps delivered must come as it was: the control plane knows it by number and content alone. */
function expectSameOffers(batches: readonly OfferedBatch[]): void {
  const content = (batch: OfferedBatch): SampleBatch => ({
    ...SampleBatch.decode(batch.payload),
    lowestUnackedSeq: 0n,
  });
  const before = new Map(offered.map((batch) => [batch.seqFrom, content(batch)]));
  for (const batch of batches) {
    const known = before.get(batch.seqFrom);
    if (known !== undefined) expect(content(batch)).toEqual(known);
  }
}

test("whatever page is unreadable, no number is given twice and all that can be read is kept", () => {
  const pages = statSync(sound).size / PAGE_BYTES;
  for (let page = 0; page < pages; page += 1) {
    copyFileSync(sound, path);
    spoil(page);
    const spool = open();
    const isSame = spool.spoolId() === spoolId;
    tick(spool);
    spool.startSession(isSame ? 6n : -1n);
    const { damagedFiles, lostBatches } = spool.status();
    const batches = drain(spool);
    const seqs = batches.map(({ seqFrom }) => Number(seqFrom));
    const nextSeq = Number(spool.nextSeq());
    spool.close();
    expect(damagedFiles.length).toBeGreaterThan(0);
    expect(new Set(seqs).size).toBe(seqs.length);
    expect(seqs.at(-1)).toBe(nextSeq - 1);
    // Without the list of tables nothing can be told: then even the numbering is a new one.
    expect(isSame).toBe(page > 0);
    if (!isSame) continue;
    expectSameOffers(batches);
    expect(nextSeq).toBeGreaterThan(BATCHES + 1);
    const missing = Array.from({ length: BATCHES - 6 }, (_, index) => index + 7).filter((seq) => !seqs.includes(seq));
    // A leaf holds four of these batches; the root of their tree leads to all of them.
    expect(missing.length <= 4 || missing.length === BATCHES - 6).toBe(true);
    expect(Number(lostBatches)).toBeGreaterThanOrEqual(missing.length);
  }
}, 60_000);

test("damage in the middle of a session costs what is unreadable, and the session goes on", () => {
  const spool = open();
  spool.startSession(6n);
  const database = new DatabaseSync(path);
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  database.close();
  const lastLeaf = statSync(path).size / PAGE_BYTES - 1;
  spoil(lastLeaf);
  tick(spool);
  expect(spool.spoolId()).toBe(spoolId);
  expect(spool.status()).toMatchObject({ damagedFiles: ["spool.db.corrupt-1"], lostBatches: 4n });
  expect(warnings).toMatchObject([{ lost: "4" }]);
  expect(Buffer.from(spool.samplerState() ?? []).toString()).toBe(`state at ${nowMs}`);
  const first = spool.takeOffers();
  expectSameOffers(first);
  expect(first.length).toBe(8);
  // The control plane has all of them although their acknowledgement was lost: they stay the same batches.
  spool.startSession(first.at(-1)?.seqTo ?? 0n);
  expect(spool.spoolId()).toBe(spoolId);
  spool.retryNow();
  expect(drain(spool).map(({ seqFrom }) => seqFrom)).toEqual(expect.arrayContaining([BigInt(BATCHES + 1)]));
  spool.close();
});

test("a process that died between the renames finds the rebuilt file", () => {
  open().close();
  spoil(10);
  const spool = open();
  const before = spool.status();
  spool.close();
  renameSync(path, `${path}.rebuilt`);
  const again = open();
  expect(again.status()).toEqual(before);
  expect(before).toMatchObject({ spoolId, lostBatches: 4n });
  again.close();
});

test("one that died while it rebuilt begins again", () => {
  spoil(10);
  copyFileSync(sound, `${path}.rebuilt`);
  const spool = open();
  expect(spool.status()).toMatchObject({ spoolId, lostBatches: 4n });
  expect(existsSync(`${path}.rebuilt`)).toBe(false);
  spool.close();
});

test("the condition ends when the file is taken away", () => {
  spoil(10);
  const spool = open();
  expect(spool.status().damagedFiles).toEqual(["spool.db.corrupt-1"]);
  for (const name of readdirSync(folder)) if (name.includes("corrupt")) rmSync(join(folder, name));
  expect(spool.status().damagedFiles).toEqual([]);
  spool.close();
});
