import type { DatabaseSync } from "node:sqlite";
import { integerOf, readFact } from "./batch-rows.ts";

/** What the heartbeat tells about the spool. */
export interface SpoolStatus {
  readonly spoolId: string;
  /** Batches that are not acknowledged. */
  readonly depth: number;
  /** End of the oldest of them, ms since 1970; 0 when there is none. */
  readonly oldestEndMs: number;
  /** Bytes in use in the file. */
  readonly bytes: number;
  /** Over the limit although nothing more can be merged: the limit gives way, nothing is dropped. */
  readonly isOverLimit: boolean;
  /** Names of former files of the spool that became unreadable and were not taken away yet. */
  readonly damagedFiles: readonly string[];
  /** Batches that could not be read out of them. */
  readonly lostBatches: bigint;
}

/** What the file itself says about the spool. */
export function readStatus(database: DatabaseSync): Omit<SpoolStatus, "isOverLimit" | "damagedFiles"> {
  const unacked = "FROM batches WHERE acked_at_ms IS NULL";
  const count = database.prepare(`SELECT count(*) AS depth ${unacked}`).get();
  const oldest = database.prepare(`SELECT end_ms, is_timed, boot_id ${unacked} ORDER BY seq_from LIMIT 1`).get();
  const lost = readFact(database, "lost_batches");
  return {
    spoolId: String(readFact(database, "spool_id")),
    depth: Number(count?.["depth"] ?? 0),
    oldestEndMs: oldest === undefined ? 0 : epochEndOf(database, oldest),
    bytes: bytesInUse(database),
    lostBatches: typeof lost === "bigint" ? lost : 0n,
  };
}

/** End of a batch since 1970; of one without absolute times by the offset last known in its boot. */
function epochEndOf(database: DatabaseSync, row: Record<string, unknown>): number {
  const endMs = Number(integerOf(row["end_ms"]));
  if (integerOf(row["is_timed"]) === 1n) return endMs;
  const boot = database.prepare("SELECT offset_ms FROM boots WHERE boot_id = ?").get(String(row["boot_id"]));
  return endMs + Number(integerOf(boot?.["offset_ms"]));
}

/** Bytes that hold something; what was deleted is used again before the file grows. */
export function bytesInUse(database: DatabaseSync): number {
  const pragma = (name: string): number => Number(Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0]);
  return (pragma("page_count") - pragma("freelist_count")) * pragma("page_size");
}
