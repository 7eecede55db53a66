import type { DatabaseSync } from "node:sqlite";
import type { SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import {
  type WholeBatch,
  decodeBatch,
  inTransaction,
  insertWhole,
  integerOf,
  wholeBatches,
  writeFact,
} from "./batch-rows.ts";

/** Numbers looked at in one reading; halved where it fails. */
const NUMBERS_AT_ONCE = 64n;
/** A file with more holes than this is given up: each costs a reading that fails. */
const MAX_FAILED_READS = 20_000;
/**
 * Left out before the next number when the file does not tell it: more batches than an unreadable
 * end can hold (two months of minutes), and less than the control plane takes for nonsense.
 */
const SAFE_DISTANCE = 100_000n;

/** Facts that hold for the salvaged rows as they held for all. */
const FACTS = ["unconfirmed_from", "sampler_state", "timed_ends"] as const;

/**
 * Copies what can be read of a damaged spool into an empty one. It stays the same spool: every batch
 * keeps its number and whether it was offered, so what was perhaps delivered is offered again as what
 * it was and counts once. Numbers that are missing come nowhere else; the control plane passes them.
 *
 * @param bootId the running boot, whose offset the clock knows
 * @returns how many numbers were lost; undefined when nothing could be told and the new one is a new spool
 */
export function salvageSpool(damaged: DatabaseSync, fresh: DatabaseSync, bootId: string): bigint | undefined {
  const stored = attempt(() => ({
    spoolId: textOf(factOf(damaged, "spool_id")),
    nextSeq: integerOf(factOf(damaged, "next_seq")),
    lost: attempt(() => integerOf(factOf(damaged, "lost_batches"))) ?? 0n,
  }));
  const ends = endsOf(damaged);
  const last = stored === undefined ? ends?.last : stored.nextSeq - 1n;
  if (last === undefined) return undefined;
  return inTransaction(fresh, () => {
    const boots = attempt(() => damaged.prepare("SELECT * FROM boots NOT INDEXED").all()) ?? [];
    const insertBoot = fresh.prepare("INSERT INTO boots VALUES (?, ?, ?)");
    for (const boot of boots) {
      insertBoot.run(String(boot["boot_id"]), integerOf(boot["is_synchronised"]), integerOf(boot["offset_ms"]));
    }
    const datedBoots = new Set([bootId, ...boots.map((boot) => String(boot["boot_id"]))]);
    const copied = copyBatches(damaged, fresh, { from: ends?.first ?? 1n, to: last }, stored?.spoolId, datedBoots);
    const spoolId = stored?.spoolId ?? copied.spoolId;
    if (spoolId === undefined) return undefined;
    const afterCopied = copied.lastSeq + 1n;
    const nextSeq = stored === undefined ? afterCopied + SAFE_DISTANCE : max(stored.nextSeq, afterCopied);
    const lost = (stored?.lost ?? 0n) + copied.lost;
    writeFact(fresh, "spool_id", spoolId);
    writeFact(fresh, "next_seq", nextSeq);
    writeFact(fresh, "lost_batches", lost);
    for (const name of FACTS) {
      const value = attempt(() => factOf(damaged, name));
      if (typeof value === "bigint" || value instanceof Uint8Array) writeFact(fresh, name, value);
    }
    return copied.lost;
  });
}

interface Copied {
  /** As the batches have it; undefined when there is none. */
  readonly spoolId: string | undefined;
  readonly lastSeq: bigint;
  /** Numbers between the first and the last that are in no copied batch. */
  readonly lost: bigint;
}

function copyBatches(
  damaged: DatabaseSync,
  fresh: DatabaseSync,
  range: { readonly from: bigint; readonly to: bigint },
  knownSpoolId: string | undefined,
  datedBoots: ReadonlySet<string>,
): Copied {
  let spoolId = knownSpoolId;
  let lastSeq = 0n;
  let held = 0n;
  for (const row of readableBatches(damaged, range.from, range.to)) {
    const batch = attempt(() => decodeBatch(row.payload));
    spoolId ??= batch?.spoolId;
    if (batch === undefined || batch.spoolId !== spoolId || !isItself(row, batch)) continue;
    // Two rows that claim a number: the file does not know which of them is right.
    if (row.seqFrom <= lastSeq) continue;
    // Nobody knows any more when that boot was.
    if (!row.isTimed && !datedBoots.has(row.bootId)) continue;
    insertWhole(fresh, row);
    lastSeq = row.seqTo;
    held += row.seqTo - row.seqFrom + 1n;
  }
  return { spoolId, lastSeq, lost: max(0n, range.to - range.from + 1n - held) };
}

function isItself(row: WholeBatch, batch: SampleBatch): boolean {
  return batch.seqFrom === row.seqFrom && batch.seqTo === row.seqTo && batch.bootId === row.bootId;
}

/** The batches of a range of numbers, ascending, as far as they can be read. */
function* readableBatches(database: DatabaseSync, from: bigint, to: bigint): Generator<WholeBatch> {
  const waiting: { from: bigint; to: bigint }[] = [];
  let failures = 0;
  for (let start = from; start <= to; start += NUMBERS_AT_ONCE) {
    waiting.push({ from: start, to: min(to, start + NUMBERS_AT_ONCE - 1n) });
    while (waiting.length > 0 && failures < MAX_FAILED_READS) {
      // Pushed by the line before or by the split below.
      const part = waiting.pop() ?? { from: start, to: start };
      const rows = attempt(() => wholeBatches(database, part.from, part.to));
      if (rows !== undefined) {
        yield* rows;
        continue;
      }
      failures += 1;
      if (part.from === part.to) continue;
      const middle = (part.from + part.to) / 2n;
      waiting.push({ from: middle + 1n, to: part.to }, { from: part.from, to: middle });
    }
  }
}

/** A fact without the help of its index, which may be what is damaged. */
function factOf(database: DatabaseSync, name: string): unknown {
  return database.prepare("SELECT value FROM facts NOT INDEXED WHERE name = ?").get(name)?.["value"];
}

function textOf(value: unknown): string {
  if (typeof value !== "string") throw new TypeError("the spool holds no text where one belongs");
  return value;
}

/** The lowest and highest number, from whichever of table and index can be read. */
function endsOf(database: DatabaseSync): { readonly first: bigint; readonly last: bigint } | undefined {
  const sources = ["batches NOT INDEXED", "batches INDEXED BY batches_unacked WHERE acked_at_ms IS NULL"];
  const end = (source: string, order: string): bigint | undefined =>
    attempt(() =>
      integerOf(
        database.prepare(`SELECT seq_from FROM ${source} ORDER BY seq_from ${order} LIMIT 1`).get()?.["seq_from"],
      ),
    );
  const [first] = sources.flatMap((source) => end(source, "ASC") ?? []);
  const [last] = sources.flatMap((source) => end(source, "DESC") ?? []);
  return first === undefined && last === undefined ? undefined : { first: first ?? 1n, last: last ?? first ?? 1n };
}

/** What a reading of a damaged file gives; undefined when it cannot be read or is not what it should be. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

function min(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
