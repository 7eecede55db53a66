import type { DatabaseSync } from "node:sqlite";
import type { SampleAcks } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { integerOf, nextSeqOf } from "./batch-rows.ts";

/** Acknowledged batches stay this long: the control plane may come back from an older backup, ms. */
const ACKED_KEPT_MS = 72 * 3_600_000;

/** The number up to which everything is acknowledged; 0 when nothing is. */
export function ackedSeqOf(database: DatabaseSync): bigint {
  return (oldestUnackedSeq(database) ?? nextSeqOf(database)) - 1n;
}

/**
 * Marks offered batches as stored by the control plane and returns the first number of each. A batch
 * counts when an acknowledgement covers it as a whole.
 */
export function acknowledgeBatches(database: DatabaseSync, acks: SampleAcks, nowMs: number): bigint[] {
  const mark = database.prepare(
    `UPDATE batches SET acked_at_ms = ?1
      WHERE acked_at_ms IS NULL AND is_offered = 1 AND seq_from BETWEEN ?2 AND ?3 AND seq_to <= ?3
      RETURNING seq_from`,
  );
  const ranges = [{ from: 0n, to: acks.contiguousSeq }, ...acks.ranges];
  return ranges.flatMap(({ from, to }) => mark.all(nowMs, from, to).map((row) => integerOf(row["seq_from"])));
}

/** Takes back acknowledgements that a restored control plane no longer knows of. */
export function unacknowledgeAbove(database: DatabaseSync, contiguousSeq: bigint): void {
  database
    .prepare("UPDATE batches SET acked_at_ms = NULL WHERE acked_at_ms IS NOT NULL AND seq_to > ?")
    .run(contiguousSeq);
}

/** Batches looked at by one `pruneAcked`: the oldest ones, since all rows would be a great part of the file. */
const PRUNE_STEP = 100;

/** Deletes the oldest of what was acknowledged long enough ago, up to the first unacknowledged. */
export function pruneAcked(database: DatabaseSync, nowMs: number): void {
  database
    .prepare(
      `DELETE FROM batches WHERE acked_at_ms < ? AND seq_from IN
        (SELECT seq_from FROM batches WHERE seq_from <= ? ORDER BY seq_from LIMIT ?)`,
    )
    .run(nowMs - ACKED_KEPT_MS, ackedSeqOf(database), PRUNE_STEP);
}

/** Deletes the oldest acknowledged batches, whatever their age; returns how many. */
export function dropAcked(database: DatabaseSync, count: number): number {
  const { changes } = database
    .prepare(
      `DELETE FROM batches WHERE seq_from IN
        (SELECT seq_from FROM batches WHERE seq_from <= ? ORDER BY seq_from LIMIT ?)`,
    )
    .run(ackedSeqOf(database), count);
  return Number(changes);
}

function oldestUnackedSeq(database: DatabaseSync): bigint | undefined {
  const row = database.prepare("SELECT min(seq_from) AS seq FROM batches WHERE acked_at_ms IS NULL").get();
  const seq = row?.["seq"];
  return seq === null || seq === undefined ? undefined : integerOf(seq);
}
