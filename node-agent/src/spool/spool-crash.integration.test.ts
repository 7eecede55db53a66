import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { SampleAcks, SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createDisciplinedClock } from "../clock/disciplined-clock.ts";
import { type Spool, openSpool } from "./spool.ts";

const program = fileURLToPath(new URL("../../../test/support/spool-process.ts", import.meta.url));
let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "spool-crash-"));
  path = join(folder, "spool.db");
});

afterEach(() => rmSync(folder, { recursive: true }));

interface Told {
  /** Sequence numbers whose append had returned. */
  readonly appended: number[];
  /** Digest of each batch that was about to be published, by its range. */
  readonly offered: Map<string, string>;
}

/** Runs a process on the spool and kills it without warning once it has told so many things. */
async function killAfter(facts: number, limitBytes = 1e9): Promise<Told> {
  const child = spawn(process.execPath, [program, path, String(limitBytes)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.setEncoding("utf8");
  child.stdout.on("data", (chunk: string) => {
    text += chunk;
    if (text.split("\n").length > facts) child.kill("SIGKILL");
  });
  await once(child, "close");
  const told: Told = { appended: [], offered: new Map() };
  for (const line of text.split("\n").slice(0, -1)) {
    // Each whole line is a fact of spool-process.ts.
    const fact = JSON.parse(line) as { appended?: number; offered?: [number, number]; digest?: string };
    if (fact.appended !== undefined) told.appended.push(fact.appended);
    if (fact.offered !== undefined) told.offered.set(fact.offered.join("-"), fact.digest ?? "");
  }
  return told;
}

function reopen(): Spool {
  const clock = createDisciplinedClock({ bootId: "boot-1", monotonicMs: () => 1e12 });
  const spool = openSpool({ path, clock, limitBytes: 1e9, log: { warn: () => undefined } });
  spool.startSession(-1n);
  return spool;
}

/** Takes and acknowledges everything. */
function drain(spool: Spool): { batches: SampleBatch[]; digests: Map<string, string> } {
  const batches: SampleBatch[] = [];
  const digests = new Map<string, string>();
  for (;;) {
    const offers = spool.takeOffers();
    if (offers.length === 0) return { batches, digests };
    for (const { seqFrom, seqTo, payload } of offers) {
      batches.push(SampleBatch.decode(payload));
      digests.set(`${seqFrom}-${seqTo}`, createHash("sha256").update(payload).digest("hex"));
      const ranges = [{ from: seqFrom, to: seqTo }];
      spool.acknowledge(SampleAcks.fromPartial({ spoolId: spool.spoolId(), ranges }));
    }
  }
}

test.each([1, 4, 5, 9, 14, 40])("killed after %i deeds, the spool has all that was done", async (facts) => {
  const told = await killAfter(facts);
  const spool = reopen();
  const { batches, digests } = drain(spool);
  spool.close();
  const seqs = batches.map(({ seqFrom }) => Number(seqFrom));
  // One more append may have been finished that could not be told any more.
  expect(seqs.length - told.appended.length).toBeLessThanOrEqual(1);
  expect(seqs.slice(0, told.appended.length)).toEqual(told.appended);
  // What was perhaps published is offered again as the very same bytes.
  for (const [range, digest] of told.offered) expect(digests.get(range)).toBe(digest);
});

test("killed again and again while it merges, the spool keeps every unit of usage once", async () => {
  let appended = 0;
  const offered = new Map<string, string>();
  for (let round = 0; round < 4; round += 1) {
    const told = await killAfter(120 + round * 37, 150_000);
    appended = Math.max(appended, ...told.appended);
    for (const [range, digest] of told.offered) offered.set(range, offered.get(range) ?? digest);
  }
  const spool = reopen();
  const { batches, digests } = drain(spool);
  expect(spool.nextSeq() - BigInt(appended)).toBeLessThanOrEqual(2n);
  spool.close();
  expect(batches.some(({ seqFrom, seqTo }) => seqTo > seqFrom)).toBe(true);
  const next = batches.reduce((expected, { seqFrom, seqTo, samples }) => {
    expect(seqFrom).toBe(expected);
    const usage = samples.reduce((sum, { cpuUsageUs }) => sum + cpuUsageUs, 0n);
    expect(usage).toBe((seqTo - seqFrom + 1n) * 7n);
    return seqTo + 1n;
  }, 1n);
  expect(next).toBeGreaterThan(BigInt(appended));
  for (const [range, digest] of offered) expect(digests.get(range)).toBe(digest);
}, 60_000);

test("a damaged file is set aside, each under a name of its own, and the spool goes on", async () => {
  await killAfter(30);
  // Closing moves the log into the file.
  reopen().close();
  const damaged = openSync(path, "r+");
  writeSync(damaged, Buffer.alloc(statSync(path).size - 4096, 0xa5), 0, undefined, 4096);
  closeSync(damaged);
  expect((await killAfter(6)).appended[0]).toBe(1);
  expect(readdirSync(folder)).toContain("spool.db.corrupt-1");
  reopen().close();
  truncateSync(path, 5000);
  expect((await killAfter(3)).appended[0]).toBe(1);
  expect(readdirSync(folder)).toContain("spool.db.corrupt-2");
});

test("a file that turns unreadable while it is in use is set aside without losing the tick", async () => {
  await killAfter(30);
  const clock = createDisciplinedClock({ bootId: "boot-1", monotonicMs: () => 1e12 });
  const spool = openSpool({ path, clock, limitBytes: 1e9, log: { warn: () => undefined } });
  const before = spool.spoolId();
  const other = new DatabaseSync(path);
  other.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  other.close();
  writeFileSync(path, Buffer.alloc(statSync(path).size, 0xa5));
  spool.append({
    samples: [],
    coversFromMonotonicMs: 1,
    coversToMonotonicMs: 2,
    unreadableVmids: [],
    samplerState: Buffer.from("s"),
  });
  expect(spool.spoolId()).not.toBe(before);
  expect(spool.status().depth).toBe(1);
  expect(readdirSync(folder)).toContain("spool.db.corrupt-1");
  spool.close();
});
