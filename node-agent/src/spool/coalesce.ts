import type { DatabaseSync } from "node:sqlite";
import type { SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { SampleBatch as SampleBatchMessage } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { MAX_MESSAGE_BYTES } from "@cloudpods/shared/topics";
import { inTransaction, integerOf, mergeableBatches, replaceByMerged } from "./batch-rows.ts";
import { mergeBatches } from "./merge-samples.ts";

/** Resolutions that minutes are merged to, finest first. Both divide an hour. */
const RESOLUTIONS_MINUTES = [5, 60] as const;
/** Groups merged in one go: some milliseconds each, between two ticks. */
const MAX_GROUPS = 32;
/** Leaves room in a message for the header fields that are added when it is offered. */
const MAX_PAYLOAD_BYTES = MAX_MESSAGE_BYTES - 1024;

/**
 * Merges the oldest batches that were never offered, first to 5 and only then to 60 minutes. Sums
 * stay exact; batches that must stay apart are left as they are and not looked at again.
 * Returns whether anything was found to look at.
 */
export function coalesceOldest(database: DatabaseSync): boolean {
  for (const minutes of RESOLUTIONS_MINUTES) {
    const groups = groupsOf(database, minutes);
    if (groups.length === 0) continue;
    inTransaction(database, () => {
      for (const { fromSeq, toSeq } of groups) mergeGroup(database, fromSeq, toSeq, minutes);
    });
    return true;
  }
  return false;
}

interface Group {
  readonly fromSeq: bigint;
  readonly toSeq: bigint;
}

/** Stretches of at least two batches that end in one interval, the one still filling left out. */
function groupsOf(database: DatabaseSync, minutes: number): Group[] {
  const widthMs = BigInt(minutes) * 60_000n;
  return database
    .prepare(
      `SELECT min(seq_from) AS from_seq, max(seq_to) AS to_seq FROM batches
        WHERE is_offered = 0 AND acked_at_ms IS NULL AND is_timed = 1 AND merged_to_minutes < ?1
          AND (end_ms - 1) / ?2 < (SELECT (max(end_ms) - 1) / ?2 FROM batches WHERE is_timed = 1)
        GROUP BY boot_id, (end_ms - 1) / ?2 HAVING count(*) > 1 ORDER BY 1 LIMIT ?3`,
    )
    .all(minutes, widthMs, MAX_GROUPS)
    .map((row) => ({ fromSeq: integerOf(row["from_seq"]), toSeq: integerOf(row["to_seq"]) }));
}

function mergeGroup(database: DatabaseSync, fromSeq: bigint, toSeq: bigint, minutes: number): void {
  const merged: SampleBatch[] = [];
  for (const batch of mergeableBatches(database, fromSeq, toSeq)) {
    const last = merged.at(-1);
    const both = last === undefined ? undefined : mergeBatches(last, batch);
    if (both !== undefined && fitsMessage(both)) merged[merged.length - 1] = both;
    else merged.push(batch);
  }
  for (const batch of merged) replaceByMerged(database, batch, minutes);
}

function fitsMessage(batch: SampleBatch): boolean {
  return SampleBatchMessage.encode(batch).finish().length <= MAX_PAYLOAD_BYTES;
}
