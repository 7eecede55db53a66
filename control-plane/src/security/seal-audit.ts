import type { Database, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { canonicalRow, emptyChain, rowHash, sealRoot, sealRowsMax } from "./audit-chain.ts";

const batchesMax = 20;

/** What was sealed. */
export interface Sealed {
  readonly rows: number;
  /** The newest seal that was written; undefined when there was nothing to seal. */
  readonly last: Seal | undefined;
}

/** A seal that proves the log up to a row, also a log that is cut off there later. */
export interface Seal {
  readonly toSeq: bigint;
  /** SHA-256 as hex. */
  readonly root: string;
}

/**
 * Gives the rows of the audit log that have none yet their place in the chain, oldest first, and writes one seal
 * over each batch. Changes never wait for this: they commit plain rows, which are chained within a second or
 * so. A row that commits late comes after rows that are younger than it.
 */
export async function sealAudit(db: Database): Promise<Sealed> {
  let sealed: Sealed = { rows: 0, last: undefined };
  for (let batch = 0; batch < batchesMax; batch += 1) {
    const { rows, last } = await db.transaction(sealBatch);
    sealed = { rows: sealed.rows + rows, last: last ?? sealed.last };
    if (rows < sealRowsMax) break;
  }
  return sealed;
}

async function sealBatch(tx: Transaction): Promise<Sealed> {
  // Two chains at once would both continue the same head.
  await tx.query(sql`SELECT pg_advisory_xact_lock(hashtextextended('audit chain', 0))`);
  const rows = await tx.query<{ id: string; canonical: string }>(sql`
    SELECT a.id, ${canonicalRow} AS canonical FROM audit_log a WHERE chain_seq IS NULL ORDER BY at, id LIMIT ${sealRowsMax}`);
  if (rows.length === 0) return { rows: 0, last: undefined };
  const [head] = await tx.query<{ seq: bigint; hash: Buffer }>(
    sql`SELECT chain_seq AS seq, hash FROM audit_log WHERE chain_seq IS NOT NULL ORDER BY chain_seq DESC LIMIT 1`,
  );
  const [last] = await tx.query<{ root: Buffer }>(sql`SELECT root FROM audit_seals ORDER BY from_seq DESC LIMIT 1`);
  const fromSeq = (head?.seq ?? 0n) + 1n;
  let hash = head?.hash ?? emptyChain;
  const links = rows.map(({ id, canonical }, index) => {
    const seq = fromSeq + BigInt(index);
    hash = rowHash(hash, seq, canonical);
    return { id, seq, hash };
  });
  const hashes = links.map((link) => link.hash);
  await tx.execute(sql`
    UPDATE audit_log a SET chain_seq = v.seq, hash = v.hash
    FROM unnest(${links.map((link) => link.id)}::uuid[], ${links.map((link) => link.seq)}::bigint[], ${hashes}::bytea[]) AS v (id, seq, hash)
    WHERE a.id = v.id`);
  const toSeq = fromSeq + BigInt(rows.length) - 1n;
  const root = sealRoot(last?.root ?? emptyChain, hashes);
  await tx.execute(sql`
    INSERT INTO audit_seals (from_seq, to_seq, root, prev) VALUES (${fromSeq}, ${toSeq}, ${root}, ${last?.root ?? null})`);
  return { rows: rows.length, last: { toSeq, root: root.toString("hex") } };
}
