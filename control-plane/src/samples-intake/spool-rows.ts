import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { PendingRange, SpoolState } from "./admit-batches.ts";
import type { SeqRange } from "./sequence-ranges.ts";

/** A spool of a node; the node is the one that the topic names. */
export interface SpoolKey {
  readonly nodeId: string;
  readonly spoolId: string;
}

/** A spool that this transaction has locked, as it was then. */
export interface LockedSpool extends SpoolKey {
  readonly spoolNo: number;
  /** The host writes to it under a revoked certificate. */
  readonly refused: boolean;
  readonly state: SpoolState;
}

interface SpoolRow {
  readonly spool_no: number;
  readonly node_id: string;
  readonly spool_id: string;
  readonly contiguous_seq: bigint;
  readonly complete_until_ms: number | null;
  readonly refused: boolean;
}

interface RangeRow {
  readonly kind: "pending" | "gap";
  readonly spool_no: number;
  readonly seq_from: bigint;
  readonly seq_to: bigint;
  readonly complete_until_ms: number | null;
}

/**
 * Locks the spools and then reads what is settled of them; that order, in statements of their own, is
 * what makes counting exact: whoever waits for a lock reads afterwards what its holder committed. Locks
 * are taken in the order of `spool_no`, so two transactions never wait for each other. A spool of a replaced
 * node that nobody with a valid certificate has named is left out, see trusted-spools.ts.
 *
 * @param lowestOf the lowest number that is offered for a spool; gaps below it play no part.
 */
export async function lockSpools(
  tx: Queryable,
  keys: readonly SpoolKey[],
  lowestOf: (key: SpoolKey) => bigint,
): Promise<LockedSpool[]> {
  const nodeIds = keys.map((key) => key.nodeId);
  const spoolIds = keys.map((key) => key.spoolId);
  // Without the first condition each batch of a known spool would use up a number of the sequence.
  await tx.query(sql`
    INSERT INTO node_spools (node_id, spool_id)
    SELECT v.node_id, v.spool_id FROM unnest(${nodeIds}::uuid[], ${spoolIds}::uuid[]) AS v (node_id, spool_id)
    WHERE NOT EXISTS (SELECT FROM node_spools s WHERE s.node_id = v.node_id AND s.spool_id = v.spool_id)
      AND NOT EXISTS (SELECT FROM node_certificates c WHERE c.node_id = v.node_id AND c.revoked_at IS NOT NULL)
    ORDER BY v.node_id, v.spool_id
    ON CONFLICT (node_id, spool_id) DO NOTHING`);
  const spools = await tx.query<SpoolRow>(sql`
    SELECT s.spool_no, s.node_id, s.spool_id, s.contiguous_seq, s.refused_since IS NOT NULL AS refused,
      extract(epoch FROM s.complete_until)::float8 * 1000 AS complete_until_ms
    FROM node_spools s
    JOIN unnest(${nodeIds}::uuid[], ${spoolIds}::uuid[]) AS v (node_id, spool_id) ON s.node_id = v.node_id AND s.spool_id = v.spool_id
    ORDER BY s.spool_no FOR UPDATE OF s`);
  const located = spools.map((row) => ({ row, key: { nodeId: row.node_id, spoolId: row.spool_id } }));
  const ranges = await tx.query<RangeRow>(sql`
    SELECT 'pending' AS kind, spool_no, seq_from, seq_to, extract(epoch FROM complete_until)::float8 * 1000 AS complete_until_ms
    FROM node_spool_pending WHERE spool_no = ANY(${spools.map((row) => row.spool_no)}::integer[])
    UNION ALL
    SELECT 'gap', g.spool_no, g.seq_from, g.seq_to, NULL
    FROM node_spool_gaps g
    JOIN unnest(${spools.map((row) => row.spool_no)}::integer[], ${located.map(({ key }) => lowestOf(key))}::bigint[]) AS v (spool_no, lowest)
      ON g.spool_no = v.spool_no AND g.seq_to >= v.lowest
    ORDER BY 2, 3`);
  return located.map(({ row, key }) => ({
    ...key,
    spoolNo: row.spool_no,
    refused: row.refused,
    state: stateOf(
      row,
      ranges.filter((range) => range.spool_no === row.spool_no),
    ),
  }));
}

function stateOf(spool: SpoolRow, ranges: readonly RangeRow[]): SpoolState {
  const ofKind = (kind: RangeRow["kind"]) =>
    ranges
      .filter((range) => range.kind === kind)
      .map((range) => ({ from: range.seq_from, to: range.seq_to, completeUntilMs: range.complete_until_ms ?? 0 }));
  return {
    contiguousSeq: spool.contiguous_seq,
    completeUntilMs: spool.complete_until_ms ?? 0,
    pending: ofKind("pending"),
    gaps: ofKind("gap").map(({ from, to }) => ({ from, to })),
  };
}

/** A spool's state before and after a transaction. */
export interface SpoolChange {
  readonly spoolNo: number;
  readonly before: SpoolState;
  readonly after: SpoolState;
}

interface NumberedRange extends SeqRange {
  readonly spoolNo: number;
  readonly completeUntilMs?: number;
}

/** Writes back the ranges that changed. The watermark itself is written with the coverage. */
export async function writeRanges(tx: Queryable, changes: readonly SpoolChange[]): Promise<void> {
  const pending = difference(changes, (state) => state.pending);
  const gaps = difference(changes, (state) => state.gaps);
  if (pending.removed.length > 0) {
    await tx.query(sql`
      DELETE FROM node_spool_pending p USING unnest(${pending.removed.map((r) => r.spoolNo)}::integer[], ${pending.removed.map((r) => r.from)}::bigint[])
        AS v (spool_no, seq_from) WHERE p.spool_no = v.spool_no AND p.seq_from = v.seq_from`);
  }
  if (gaps.removed.length > 0) {
    await tx.query(sql`
      DELETE FROM node_spool_gaps g USING unnest(${gaps.removed.map((r) => r.spoolNo)}::integer[], ${gaps.removed.map((r) => r.from)}::bigint[])
        AS v (spool_no, seq_from) WHERE g.spool_no = v.spool_no AND g.seq_from = v.seq_from`);
  }
  if (pending.added.length > 0) {
    await tx.query(sql`
      INSERT INTO node_spool_pending (spool_no, seq_from, seq_to, complete_until)
      SELECT spool_no, seq_from, seq_to, to_timestamp(nullif(until_ms, 0) / 1000)
      FROM unnest(${pending.added.map((r) => r.spoolNo)}::integer[], ${pending.added.map((r) => r.from)}::bigint[],
        ${pending.added.map((r) => r.to)}::bigint[], ${pending.added.map((r) => r.completeUntilMs ?? 0)}::float8[])
        AS v (spool_no, seq_from, seq_to, until_ms)`);
  }
  if (gaps.added.length > 0) {
    await tx.query(sql`
      INSERT INTO node_spool_gaps (spool_no, seq_from, seq_to)
      SELECT * FROM unnest(${gaps.added.map((r) => r.spoolNo)}::integer[], ${gaps.added.map((r) => r.from)}::bigint[], ${gaps.added.map((r) => r.to)}::bigint[])`);
  }
}

function difference(
  changes: readonly SpoolChange[],
  rangesOf: (state: SpoolState) => readonly (SeqRange | PendingRange)[],
): { removed: NumberedRange[]; added: NumberedRange[] } {
  const isIn = (ranges: readonly SeqRange[], range: SeqRange) =>
    ranges.some((other) => other.from === range.from && other.to === range.to);
  const missingIn = (side: "before" | "after", other: "before" | "after") =>
    changes.flatMap((change) =>
      rangesOf(change[side])
        .filter((range) => !isIn(rangesOf(change[other]), range))
        .map((range) => ({ ...range, spoolNo: change.spoolNo })),
    );
  return { removed: missingIn("before", "after"), added: missingIn("after", "before") };
}
