import type { DatabaseSync } from "node:sqlite";
import { deserialize, serialize } from "node:v8";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import { COVER, type TimedEnd, withAbsoluteTimes } from "./absolute-times.ts";
import { decodeBatch, integerOf, readFact, storeTimes, untimedBatches, writeFact } from "./batch-rows.ts";

/** Keeps what the clock knows in this boot, for the day when the boot is over. */
export function rememberOffset(database: DatabaseSync, clock: DisciplinedClock): void {
  database
    .prepare(
      `INSERT INTO boots VALUES (?, ?, ?) ON CONFLICT (boot_id) DO UPDATE
        SET is_synchronised = excluded.is_synchronised, offset_ms = excluded.offset_ms`,
    )
    .run(clock.bootId, clock.isSynchronised() ? 1n : 0n, BigInt(clock.offsetMs()));
}

/** The offset that the control plane taught in a boot; undefined when it never did. */
export function rememberedOffset(database: DatabaseSync, bootId: string): number | undefined {
  const boot = bootOf(database, bootId);
  return boot?.isSynchronised === true ? Number(boot.offsetMs) : undefined;
}

/**
 * Gives absolute times to every batch up to a number, in order, once and for ever. Returns false
 * when it had to stop: the running boot has had no contact yet, and its times will be known better.
 * Boots that ended before any contact get the wall clock's times and say so.
 */
export function timeBatches(database: DatabaseSync, clock: DisciplinedClock, upToSeq: bigint): boolean {
  for (const row of untimedBatches(database, upToSeq)) {
    const isRunningBoot = row.bootId === clock.bootId;
    if (isRunningBoot && !clock.isSynchronised()) return false;
    const boot = isRunningBoot ? undefined : bootOf(database, row.bootId);
    const offsetMs = boot?.offsetMs ?? BigInt(clock.offsetMs());
    const unsynchronised = boot !== undefined && !boot.isSynchronised;
    const batch = decodeBatch(row.payload);
    const ends = readEnds(database, row.bootId);
    const timed = withAbsoluteTimes(batch, offsetMs, ends);
    storeTimes(database, { ...timed, unsynchronised });
    writeEnds(database, row.bootId, ends);
  }
  return true;
}

/** Forgets boots that no batch without times refers to any more. */
export function forgetOldBoots(database: DatabaseSync, currentBootId: string): void {
  database
    .prepare(
      `DELETE FROM boots WHERE boot_id <> ?
        AND boot_id NOT IN (SELECT boot_id FROM batches WHERE is_timed = 0)`,
    )
    .run(currentBootId);
}

function bootOf(database: DatabaseSync, bootId: string): { isSynchronised: boolean; offsetMs: bigint } | undefined {
  const row = database.prepare("SELECT * FROM boots WHERE boot_id = ?").get(bootId);
  if (row === undefined) return undefined;
  return {
    isSynchronised: integerOf(row["is_synchronised"]) === 1n,
    offsetMs: integerOf(row["offset_ms"]),
  };
}

/** Ends older than this are forgotten: a pod that nobody could read for so long starts afresh. */
const ENDS_KEPT_MS = 7n * 86_400_000n;

function readEnds(database: DatabaseSync, bootId: string): Map<string, TimedEnd> {
  const stored = readFact(database, "timed_ends");
  if (!(stored instanceof Uint8Array)) return new Map();
  // Only `writeEnds` writes this fact, in SQLite's own transactions, so the shape is as written.
  const { bootId: ofBoot, ends } = deserialize(stored) as StoredEnds;
  return ofBoot === bootId ? ends : new Map();
}

function writeEnds(database: DatabaseSync, bootId: string, ends: Map<string, TimedEnd>): void {
  const now = ends.get(COVER)?.monotonicMs ?? 0n;
  for (const [podId, { monotonicMs }] of ends) {
    if (monotonicMs + ENDS_KEPT_MS < now) ends.delete(podId);
  }
  const stored: StoredEnds = { bootId, ends };
  writeFact(database, "timed_ends", serialize(stored));
}

interface StoredEnds {
  readonly bootId: string;
  readonly ends: Map<string, TimedEnd>;
}
