import { renameSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { codeOf, messageOf } from "../agent-error.ts";

/**
 * Tables of the journal. Times are ms since 1970 UTC by the agent's disciplined clock, and before its first
 * contact by the host's, which may be years off: what depends on how long ago a command came is told by
 * `accepted_boot_id` and `accepted_monotonic_ms`.
 *
 * `commands` keeps every command that was accepted and how it ended. `fence` keeps, for each pod, the
 * highest (fleet_epoch, generation, revision) that was accepted and the state wished by it. `facts`
 * keeps single values: the boot for which the ownership is known, and the highest fleet epoch seen.
 */
const schema = `
CREATE TABLE IF NOT EXISTS commands (
  command_id TEXT PRIMARY KEY,
  operation TEXT NOT NULL,
  pod_id TEXT NOT NULL,
  vmid INTEGER NOT NULL,
  envelope BLOB NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('accepted', 'running', 'finished')),
  accepted_at_ms INTEGER NOT NULL,
  accepted_boot_id TEXT NOT NULL,
  accepted_monotonic_ms INTEGER NOT NULL,
  started_at_ms INTEGER,
  finished_at_ms INTEGER,
  vmid_absent_before INTEGER NOT NULL DEFAULT 0,
  result BLOB,
  confirmed_at_ms INTEGER,
  CHECK ((state = 'finished') = (result IS NOT NULL))
) STRICT;
CREATE INDEX IF NOT EXISTS commands_unfinished ON commands (accepted_at_ms) WHERE state <> 'finished';
CREATE INDEX IF NOT EXISTS commands_unconfirmed ON commands (finished_at_ms)
  WHERE state = 'finished' AND confirmed_at_ms IS NULL;
CREATE INDEX IF NOT EXISTS commands_confirmed ON commands (confirmed_at_ms) WHERE confirmed_at_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS commands_vmid_absent ON commands (pod_id) WHERE vmid_absent_before = 1;
CREATE TABLE IF NOT EXISTS fence (
  pod_id TEXT PRIMARY KEY,
  vmid INTEGER NOT NULL,
  fleet_epoch INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  present INTEGER NOT NULL,
  spec BLOB,
  power INTEGER NOT NULL,
  shutdown_timeout_seconds INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
`;

/** Version of `schema`, kept in SQLite's user_version. */
const schemaVersion = 1;

/** An open journal file. */
export interface OpenedJournal {
  readonly database: DatabaseSync;
  /** Where a damaged file was put; undefined when the file was sound or new. */
  readonly damagedFile: string | undefined;
}

/**
 * Opens the journal, every commit of which is flushed to disk before it returns. A damaged file is
 * put aside and a new one begun: the markers in the containers' configurations still refuse what is
 * too old, and a host that cannot write a journal could not be repaired from afar.
 */
export function openJournalFile(path: string): OpenedJournal {
  try {
    return { database: openSound(path), damagedFile: undefined };
  } catch (error) {
    if (!isDamage(error)) throw error;
    const damagedFile = `${path}.damaged-${Date.now()}`;
    renameSync(path, damagedFile);
    for (const suffix of ["-wal", "-shm"]) {
      try {
        renameSync(path + suffix, damagedFile + suffix);
      } catch (missing) {
        if (codeOf(missing) !== "ENOENT") throw missing;
      }
    }
    return { database: openSound(path), damagedFile };
  }
}

/** Opens the journal of a running agent to look at it. */
export function openJournalForReading(path: string): DatabaseSync {
  return new DatabaseSync(path, { readOnly: true, readBigInts: true, timeout: 5_000 });
}

function openSound(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { readBigInts: true, timeout: 5_000 });
  try {
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 4194304;");
    const check = database.prepare("PRAGMA quick_check(1)").get()?.["quick_check"];
    if (check !== "ok") throw new DamagedJournal(String(check));
    const version = Number(database.prepare("PRAGMA user_version").get()?.["user_version"]);
    if (version > schemaVersion) {
      throw new Error(`${path} was written by a newer agent (schema ${version}); upgrade this one.`);
    }
    database.exec(`BEGIN IMMEDIATE; ${schema} PRAGMA user_version = ${schemaVersion}; COMMIT;`);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

class DamagedJournal extends Error {}

/** SQLITE_CORRUPT and SQLITE_NOTADB (https://sqlite.org/rescode.html). */
function isDamage(error: unknown): boolean {
  return (
    error instanceof DamagedJournal ||
    (codeOf(error) === "ERR_SQLITE_ERROR" && /malformed|not a database/.test(messageOf(error)))
  );
}
