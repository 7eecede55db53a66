import type { DatabaseSync } from "node:sqlite";
import { decodeBatch, insertBatch, nextSeqOf, unackedFrom, writeFact } from "./batch-rows.ts";

/**
 * Turns a spool file that is an old copy (the host's disk was put back to a snapshot) into a new
 * spool. What it held when it was copied has been delivered by its later self, under numbers at or
 * below the control plane's watermark; what came after is new usage and gets new numbers.
 *
 * @param fromSeq the first number that this copy gave
 */
export function renumberAsNewSpool(database: DatabaseSync, spoolId: string, fromSeq: bigint): void {
  const rows = unackedFrom(database, fromSeq);
  database.exec("DELETE FROM batches");
  writeFact(database, "spool_id", spoolId);
  writeFact(database, "next_seq", 1n);
  for (const row of rows) {
    const batch = decodeBatch(row.payload);
    const seqFrom = nextSeqOf(database);
    const seqTo = seqFrom + (batch.seqTo - batch.seqFrom);
    insertBatch(database, { ...batch, spoolId, seqFrom, seqTo }, row.isTimed);
  }
}
