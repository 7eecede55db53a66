import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, renameSync, rmSync } from "node:fs";
import { basename, dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { codeOf } from "../agent-error.ts";
import { salvageSpool } from "./salvage-spool.ts";

/**
 * `batches`: one row a tick (or a part of one, or several merged ones), kept until 72 h after it was
 * acknowledged. `payload` is an encoded SampleBatch; its times, and `end_ms`, are monotonic ms of
 * `boot_id` while `is_timed` is 0 and ms since 1970 for ever after. `merged_to_minutes` is the
 * resolution that merging has already been tried for. `boots` holds the last offset known in each
 * boot. `facts` holds single values: `spool_id`, `next_seq`, `unconfirmed_from` (the first number
 * given since a session last confirmed that this file is not an old copy), `sampler_state`, and
 * `timed_ends` (where each pod's last interval ended in both clocks), `lost_batches` (numbers that damage
 * has taken).
 */
const SCHEMA = `
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS batches (
  seq_from INTEGER PRIMARY KEY,
  seq_to INTEGER NOT NULL,
  boot_id TEXT NOT NULL,
  end_ms INTEGER NOT NULL,
  is_timed INTEGER NOT NULL,
  merged_to_minutes INTEGER NOT NULL,
  is_offered INTEGER NOT NULL,
  acked_at_ms INTEGER,
  payload BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS batches_unacked ON batches (seq_from, is_offered) WHERE acked_at_ms IS NULL;
CREATE INDEX IF NOT EXISTS batches_untimed ON batches (seq_from) WHERE is_timed = 0;
CREATE TABLE IF NOT EXISTS boots (
  boot_id TEXT PRIMARY KEY,
  is_synchronised INTEGER NOT NULL,
  offset_ms INTEGER NOT NULL
) STRICT;
`;

/** A database and its companions in WAL mode. */
const SUFFIXES = ["-wal", "-shm", ""] as const;

/** Kept in SQLite's user_version; a file of another version is set aside like a damaged one. */
const SCHEMA_VERSION = 1;

/** Result codes of SQLite (sqlite.org/rescode.html) that say that the file itself is bad. */
const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;

/** An open spool file. */
export interface SpoolFile {
  readonly database: DatabaseSync;
  /** What happened to a predecessor that could not be read as a whole. */
  readonly damage: SpoolDamage | undefined;
}

/** A spool file that was replaced. */
export interface SpoolDamage {
  /** Where it is kept. */
  readonly setAside: string;
  /** Numbers that could not be taken over; undefined when that could not even be told, and a new spool was begun. */
  readonly lostBatches: bigint | undefined;
}

/**
 * Opens the spool's file, or begins one with a new spool id. Every commit is on the disk when it
 * returns (synchronous=FULL). An unreadable file is renamed, never overwritten, and replaced by what
 * can be read of it.
 *
 * @param bootId the running boot
 */
export function openSpoolFile(path: string, bootId: string): SpoolFile {
  // The process before died between the two renames of `replaceSpoolFile`.
  if (!existsSync(path) && existsSync(rebuiltPath(path))) renameSync(rebuiltPath(path), path);
  try {
    return { database: openSound(path), damage: undefined };
  } catch (error) {
    if (!isDamage(error)) throw error;
    const damage = replaceSpoolFile(path, bootId);
    return { database: openSound(path), damage };
  }
}

/** Puts what can be read of a damaged spool in its place; the database must be closed. */
export function replaceSpoolFile(path: string, bootId: string): SpoolDamage {
  const rebuilt = rebuiltPath(path);
  for (const suffix of SUFFIXES) rmSync(rebuilt + suffix, { force: true });
  let lostBatches: bigint | undefined;
  try {
    lostBatches = rebuild(path, rebuilt, bootId);
  } catch {
    // A disk that is full, for one: the file is kept, and metering goes on in a new one.
    lostBatches = undefined;
  }
  const setAside = setSpoolFileAside(path);
  if (lostBatches === undefined) for (const suffix of SUFFIXES) rmSync(rebuilt + suffix, { force: true });
  else renameSync(rebuilt, path);
  return { setAside, lostBatches };
}

/** Makes a sound file of what can be read of another; it is complete and closed when this returns. */
function rebuild(path: string, rebuilt: string, bootId: string): bigint | undefined {
  const damaged = new DatabaseSync(path, { readBigInts: true, timeout: 5000 });
  try {
    const version = pragma(damaged, "user_version");
    if (version !== BigInt(SCHEMA_VERSION)) return undefined;
    const fresh = openSound(rebuilt);
    try {
      const lost = salvageSpool(damaged, fresh, bootId);
      fresh.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      return lost;
    } finally {
      // The last connection that closes takes the companions away.
      fresh.close();
    }
  } finally {
    damaged.close();
  }
}

/** Names of the files that were set aside and are still there. */
export function setAsideFiles(path: string): string[] {
  const prefix = `${basename(path)}.corrupt-`;
  return readdirSync(dirname(path))
    .filter((name) => name.startsWith(prefix) && /^\d+$/u.test(name.slice(prefix.length)))
    .toSorted();
}

/** Renames the spool with its companions and returns the new name. */
function setSpoolFileAside(path: string): string {
  let count = 1;
  while (existsSync(`${path}.corrupt-${count}`)) count += 1;
  const setAside = `${path}.corrupt-${count}`;
  // The file itself goes last: as long as it is there, nothing has been replaced.
  for (const suffix of SUFFIXES) {
    try {
      renameSync(path + suffix, setAside + suffix);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    }
  }
  return setAside;
}

function rebuiltPath(path: string): string {
  return `${path}.rebuilt`;
}

/** Whether SQLite found the file unreadable, as opposed to a full disk or a fault of ours. */
export function isDamage(error: unknown): boolean {
  if (error instanceof DamagedSpoolError) return true;
  if (typeof error !== "object" || error === null || !("errcode" in error)) return false;
  // The low byte of an extended result code is the primary one.
  const primary = Number(error.errcode) & 0xff;
  return primary === SQLITE_CORRUPT || primary === SQLITE_NOTADB;
}

class DamagedSpoolError extends Error {}

function openSound(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { readBigInts: true, timeout: 5000 });
  try {
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    const check = pragma(database, "quick_check(1)");
    if (check !== "ok") throw new DamagedSpoolError(String(check));
    const version = pragma(database, "user_version");
    if (version !== 0n && version !== BigInt(SCHEMA_VERSION)) {
      throw new DamagedSpoolError(`unknown version ${String(version)}`);
    }
    database.exec(`BEGIN IMMEDIATE; ${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION};`);
    const begin = database.prepare("INSERT INTO facts VALUES (?, ?) ON CONFLICT DO NOTHING");
    begin.run("spool_id", randomUUID());
    begin.run("next_seq", 1n);
    database.exec("COMMIT");
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function pragma(database: DatabaseSync, name: string): unknown {
  return Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
}
