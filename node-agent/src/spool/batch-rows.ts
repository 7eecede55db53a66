import type { DatabaseSync } from "node:sqlite";
import { SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";

/** A row of `batches`. */
export interface StoredBatch {
  readonly seqFrom: bigint;
  readonly seqTo: bigint;
  readonly bootId: string;
  /** An encoded SampleBatch. */
  readonly payload: Uint8Array;
}

const COLUMNS = "seq_from, seq_to, boot_id, payload";

/** Runs `work` in one transaction that is on the disk when this returns. */
export function inTransaction<T>(database: DatabaseSync, work: () => T): T {
  database.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    database.exec("COMMIT");
    return result;
  } catch (error) {
    // SQLite has rolled back by itself after some errors, a full disk for one.
    if (database.isTransaction) database.exec("ROLLBACK");
    throw error;
  }
}

/** A single value of `facts`; undefined when it is not set. */
export function readFact(database: DatabaseSync, name: string): unknown {
  return database.prepare("SELECT value FROM facts WHERE name = ?").get(name)?.["value"];
}

/** Sets a single value. */
export function writeFact(database: DatabaseSync, name: string, value: bigint | string | Uint8Array): void {
  database
    .prepare("INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
    .run(name, value);
}

/** The number that the next batch gets. */
export function nextSeqOf(database: DatabaseSync): bigint {
  return integerOf(readFact(database, "next_seq"));
}

/** Adds a batch that was never offered under the next number. */
export function insertBatch(
  database: DatabaseSync,
  batch: SampleBatch,
  isTimed: boolean,
  payload: Uint8Array = encode(batch),
): void {
  database
    .prepare("INSERT INTO batches VALUES (?, ?, ?, ?, ?, 0, 0, NULL, ?)")
    .run(batch.seqFrom, batch.seqTo, batch.bootId, endOf(batch), isTimed ? 1n : 0n, payload);
  writeFact(database, "next_seq", batch.seqTo + 1n);
}

/** Gives a stored batch its final times. */
export function storeTimes(database: DatabaseSync, batch: SampleBatch): void {
  database
    .prepare("UPDATE batches SET is_timed = 1, end_ms = ?, payload = ? WHERE seq_from = ?")
    .run(endOf(batch), encode(batch), batch.seqFrom);
}

/** Puts one batch in the place of those whose numbers it covers. */
export function replaceByMerged(database: DatabaseSync, batch: SampleBatch, minutes: number): void {
  const payload = encode(batch);
  database.prepare("DELETE FROM batches WHERE seq_from > ? AND seq_to <= ?").run(batch.seqFrom, batch.seqTo);
  database
    .prepare(
      `UPDATE batches SET seq_to = ?, end_ms = ?, merged_to_minutes = ?, payload = ?
        WHERE seq_from = ?`,
    )
    .run(batch.seqTo, endOf(batch), minutes, payload, batch.seqFrom);
}

/** Unacknowledged batches, oldest first, that were offered before or not. */
export function unackedBatches(database: DatabaseSync, isOffered: boolean, limit: number): StoredBatch[] {
  return database
    .prepare(
      `SELECT ${COLUMNS} FROM batches
        WHERE acked_at_ms IS NULL AND is_offered = ? ORDER BY seq_from LIMIT ?`,
    )
    .all(isOffered ? 1n : 0n, limit)
    .map(storedBatchOf);
}

/** Marks timed batches up to a number as offered, which they stay for ever, and returns them. */
export function markOffered(database: DatabaseSync, upToSeq: bigint): StoredBatch[] {
  return database
    .prepare(
      `UPDATE batches SET is_offered = 1
        WHERE is_timed = 1 AND is_offered = 0 AND acked_at_ms IS NULL AND seq_from <= ?
        RETURNING ${COLUMNS}`,
    )
    .all(upToSeq)
    .map(storedBatchOf)
    .toSorted((a, b) => Number(a.seqFrom - b.seqFrom));
}

/** Batches up to a number that have no absolute times yet, oldest first. */
export function untimedBatches(database: DatabaseSync, upToSeq: bigint): StoredBatch[] {
  return database
    .prepare(
      `SELECT ${COLUMNS} FROM batches
        WHERE is_timed = 0 AND seq_from <= ? ORDER BY seq_from`,
    )
    .all(upToSeq)
    .map(storedBatchOf);
}

/** Unacknowledged batches from a number on, oldest first. */
export function unackedFrom(database: DatabaseSync, fromSeq: bigint): (StoredBatch & { readonly isTimed: boolean })[] {
  return database
    .prepare(
      `SELECT ${COLUMNS}, is_timed FROM batches
        WHERE acked_at_ms IS NULL AND seq_from >= ? ORDER BY seq_from`,
    )
    .all(fromSeq)
    .map((row) => ({ ...storedBatchOf(row), isTimed: integerOf(row["is_timed"]) === 1n }));
}

/** Timed, never-offered batches in a range of numbers. */
export function mergeableBatches(database: DatabaseSync, fromSeq: bigint, toSeq: bigint): SampleBatch[] {
  return database
    .prepare(
      `SELECT payload FROM batches
        WHERE seq_from >= ? AND seq_to <= ? AND is_timed = 1 AND is_offered = 0 ORDER BY seq_from`,
    )
    .all(fromSeq, toSeq)
    .map((row) => SampleBatch.decode(bytesOf(row["payload"])));
}

/** A row with everything that it says. */
export interface WholeBatch extends StoredBatch {
  readonly endMs: bigint;
  readonly isTimed: boolean;
  readonly mergedToMinutes: bigint;
  readonly isOffered: boolean;
  readonly ackedAtMs: bigint | undefined;
}

/** Whole rows whose first number is in a range, oldest first. */
export function wholeBatches(database: DatabaseSync, fromSeq: bigint, toSeq: bigint): WholeBatch[] {
  return database
    .prepare("SELECT * FROM batches NOT INDEXED WHERE seq_from BETWEEN ? AND ? ORDER BY seq_from")
    .all(fromSeq, toSeq)
    .map((row) => ({
      ...storedBatchOf(row),
      endMs: integerOf(row["end_ms"]),
      isTimed: integerOf(row["is_timed"]) === 1n,
      mergedToMinutes: integerOf(row["merged_to_minutes"]),
      isOffered: integerOf(row["is_offered"]) === 1n,
      ackedAtMs: row["acked_at_ms"] === null ? undefined : integerOf(row["acked_at_ms"]),
    }));
}

/** Adds a row as it is. */
export function insertWhole(database: DatabaseSync, row: WholeBatch): void {
  const { seqFrom, seqTo, bootId, endMs, mergedToMinutes, ackedAtMs, payload } = row;
  const [isTimed, isOffered] = [row.isTimed ? 1n : 0n, row.isOffered ? 1n : 0n];
  database
    .prepare("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
    .run(seqFrom, seqTo, bootId, endMs, isTimed, mergedToMinutes, isOffered, ackedAtMs ?? null, payload);
}

/** Decodes a payload that this agent encoded. */
export function decodeBatch(payload: Uint8Array): SampleBatch {
  return SampleBatch.decode(payload);
}

/** A row of at least the columns of StoredBatch. */
function storedBatchOf(row: Record<string, unknown>): StoredBatch {
  return {
    seqFrom: integerOf(row["seq_from"]),
    seqTo: integerOf(row["seq_to"]),
    bootId: String(row["boot_id"]),
    payload: bytesOf(row["payload"]),
  };
}

/** An INTEGER column; the database is opened with readBigInts, so counters keep all 64 bits. */
export function integerOf(value: unknown): bigint {
  if (typeof value !== "bigint") throw new TypeError("the spool holds no integer where one belongs");
  return value;
}

/** A BLOB column. */
function bytesOf(value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw new TypeError("the spool holds no bytes where they belong");
  return value;
}

function encode(batch: SampleBatch): Uint8Array {
  return SampleBatch.encode(batch).finish();
}

function endOf(batch: SampleBatch): bigint {
  return batch.samples.reduce((latest, { endMs }) => (endMs > latest ? endMs : latest), batch.coversToMs);
}
