import { createHash } from "node:crypto";
import { newId } from "@cloudpods/shared/ids";
import { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { nodeTopics } from "@cloudpods/shared/topics";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { RejectionReason } from "./judge-sample.ts";
import type { SamplesMessage } from "./read-message.ts";
import type { SpoolChange } from "./spool-rows.ts";

/** Time that a host's sampler covered, so that an absent pod was not running. */
export interface Coverage {
  readonly spoolNo: number;
  readonly seqFrom: bigint;
  readonly fromMs: number;
  readonly toMs: number;
  readonly unreadableVmids: readonly number[];
  readonly unsynchronised: boolean;
}

/** An hour whose figures must be made again for the pods of a node. */
export interface DirtyHour {
  readonly nodeId: string;
  readonly hourMs: number;
}

/** A sample that was understood and not believed. */
export interface RejectedSample {
  readonly nodeId: string;
  readonly spoolNo: number;
  readonly seq: bigint;
  readonly sample: Sample;
  readonly reason: RejectionReason;
}

/** A message that was not understood or contradicts what is known. */
export interface DeadLetter {
  readonly message: SamplesMessage;
  readonly nodeId: string | undefined;
  readonly reason: string;
  readonly detail: string;
}

/** Coverage, dirty marks and watermarks in one statement, because each is a round trip per group of messages. */
export async function writeCoverageAndWatermarks(
  tx: Queryable,
  rows: {
    readonly coverage: readonly Coverage[];
    readonly dirtyHours: readonly DirtyHour[];
    readonly changes: readonly SpoolChange[];
  },
): Promise<void> {
  const { coverage, dirtyHours, changes } = rows;
  if (coverage.length + dirtyHours.length + changes.length === 0) return;
  await tx.query(sql`
    WITH covered AS (
      INSERT INTO node_coverage (spool_no, seq_from, covers_from, covers_to, unreadable_vmids, unsynchronised)
      SELECT spool_no, seq_from, to_timestamp(from_ms / 1000), to_timestamp(to_ms / 1000), vmids::integer[], unsynchronised
      FROM unnest(${coverage.map((c) => c.spoolNo)}::integer[], ${coverage.map((c) => c.seqFrom)}::bigint[],
        ${coverage.map((c) => c.fromMs)}::float8[], ${coverage.map((c) => c.toMs)}::float8[],
        ${coverage.map((c) => `{${c.unreadableVmids.join(",")}}`)}::text[], ${coverage.map((c) => c.unsynchronised)}::boolean[])
        AS v (spool_no, seq_from, from_ms, to_ms, vmids, unsynchronised)
    ), marked AS (
      INSERT INTO usage_dirty_hours (hour_start, node_id)
      SELECT to_timestamp(hour_ms / 1000), node_id
      FROM unnest(${dirtyHours.map((d) => d.hourMs)}::float8[], ${dirtyHours.map((d) => d.nodeId)}::uuid[]) AS v (hour_ms, node_id)
    )
    UPDATE node_spools s SET contiguous_seq = v.contiguous_seq, complete_until = to_timestamp(nullif(v.until_ms, 0) / 1000)
    FROM unnest(${changes.map((c) => c.spoolNo)}::integer[], ${changes.map((c) => c.after.contiguousSeq)}::bigint[],
      ${changes.map((c) => c.after.completeUntilMs)}::float8[]) AS v (spool_no, contiguous_seq, until_ms)
    WHERE s.spool_no = v.spool_no`);
}

/** Keeps samples that were not counted, with the reason, so that they can be offered again by hand. */
export async function writeRejectedSamples(tx: Queryable, rejected: readonly RejectedSample[]): Promise<void> {
  if (rejected.length === 0) return;
  await tx.query(sql`
    INSERT INTO usage_rejected_samples (id, node_id, spool_no, seq, reason, sample)
    SELECT * FROM unnest(${rejected.map(() => newId())}::uuid[], ${rejected.map((r) => r.nodeId)}::uuid[],
      ${rejected.map((r) => r.spoolNo)}::integer[], ${rejected.map((r) => r.seq)}::bigint[], ${rejected.map((r) => r.reason)}::text[],
      ${rejected.map((r) => JSON.stringify(Sample.toJSON(r.sample)))}::jsonb[])`);
}

/** Keeps messages that could not be stored. A message that comes again is kept once: its content is its id. */
export async function writeDeadLetters(tx: Queryable, letters: readonly DeadLetter[]): Promise<void> {
  for (const { message, nodeId, reason, detail } of letters) {
    const topic = nodeTopics(message.nodeId).samples;
    await tx.query(sql`
      INSERT INTO telemetry_dead_letters (id, node_id, topic, reason, detail, payload)
      VALUES (${contentId(topic, message.payload)}, ${nodeId ?? null}, ${topic}, ${reason}, ${detail.slice(0, 1_000)}, ${Buffer.from(message.payload)})
      ON CONFLICT (id) DO NOTHING`);
  }
}

/** A UUIDv8 (RFC 9562: content of the maker's choice) of a message's topic and payload. */
function contentId(topic: string, payload: Uint8Array): string {
  const digest = createHash("sha256").update(topic).update("\0").update(payload).digest();
  digest[6] = (digest.readUInt8(6) & 0x0f) | 0x80;
  digest[8] = (digest.readUInt8(8) & 0x3f) | 0x80;
  const hex = digest.toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join("-");
}
