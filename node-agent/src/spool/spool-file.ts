import { randomUUID } from "node:crypto";
import { existsSync, renameSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { codeOf } from "../agent-error.ts";

/**
 * `batches`: one row a tick (or a part of one, or several merged ones), kept until 72 h after it was
 * acknowledged. `payload` is an encoded SampleBatch; its times, and `end_ms`, are monotonic ms of
 * `boot_id` while `is_timed` is 0 and ms since 1970 for ever after. `merged_to_minutes` is the
 * resolution that merging has already been tried for. `boots` holds the last offset known in each
 * boot. `facts` holds single values: `spool_id`, `next_seq`, `unconfirmed_from` (the first number
 * given since a session last confirmed that this file is not an old copy), `sampler_state`, and
 * `timed_ends` (where each pod's last interval ended in both clocks).
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

/** Kept in SQLite's user_version; a file of another version is set aside like a damaged one. */
const SCHEMA_VERSION = 1;

/** Result codes of SQLite (sqlite.org/rescode.html) that say that the file itself is bad. */
const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;

/** An open spool file. */
export interface SpoolFile {
  readonly database: DatabaseSync;
  /** Where an unreadable predecessor was put. */
  readonly setAside: string | undefined;
}

/**
 * Opens the spool's file, or begins one with a new spool id. Every commit is on the disk when it
 * returns (synchronous=FULL). An unreadable file is renamed, never overwritten.
 */
export function openSpoolFile(path: string): SpoolFile {
  try {
    return { database: openSound(path), setAside: undefined };
  } catch (error) {
    if (!isDamage(error)) throw error;
    const setAside = setSpoolFileAside(path);
    return { database: openSound(path), setAside };
  }
}

/** Renames the spool with its companions and returns the new name; the database must be closed. */
export function setSpoolFileAside(path: string): string {
  let count = 1;
  while (existsSync(`${path}.corrupt-${count}`)) count += 1;
  const setAside = `${path}.corrupt-${count}`;
  for (const suffix of ["-wal", "-shm", ""]) {
    try {
      renameSync(path + suffix, setAside + suffix);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    }
  }
  return setAside;
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
    const [check] = Object.values(database.prepare("PRAGMA quick_check(1)").get() ?? {});
    if (check !== "ok") throw new DamagedSpoolError(String(check));
    const [version] = Object.values(database.prepare("PRAGMA user_version").get() ?? {});
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
