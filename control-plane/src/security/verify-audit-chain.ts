import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { canonicalRow, emptyChain, rowHash, sealRoot } from "./audit-chain.ts";

/** Whether the audit log is as it was written. */
export interface AuditVerdict {
  /** Rows that were found as they were sealed, up to the first fault. */
  readonly verifiedRows: bigint;
  /** Rows that have no place in the chain yet. */
  readonly unsealedRows: bigint;
  /** Root of the last seal that holds (hex); empty without any. Noted elsewhere it proves the log up to there. */
  readonly root: string;
  readonly fault: AuditFault | undefined;
}

/** The first place where the log is not what was sealed. */
export interface AuditFault {
  /** Number in the chain. */
  readonly seq: bigint;
  /**
   * `ROW_MISSING`: deleted, or taken out of the chain. `ROW_CHANGED`: its text does not give its hash.
   * `SEAL_BROKEN`: the seal that begins here does not follow from the rows and the seal before.
   * `ROW_UNSEALED`: rows from here on are numbered but no seal covers them.
   */
  readonly code: "ROW_MISSING" | "ROW_CHANGED" | "SEAL_BROKEN" | "ROW_UNSEALED";
}

interface Seal {
  readonly from: bigint;
  readonly to: bigint;
  readonly root: Buffer;
  readonly prev: Buffer | null;
}

const sealsAtOnce = 500;

/**
 * Computes the whole chain and its seals anew and finds any row that was changed, deleted, inserted or moved since
 * it was sealed. Whoever can write to both tables can also compute a new chain over a forged log: only a root that
 * was noted outside of the database shows that. Reads every row; minutes for millions.
 */
export async function verifyAuditChain(db: Queryable): Promise<AuditVerdict> {
  const [counts] = await db.query<{ unsealed: bigint; lastSeq: bigint; sealedTo: bigint }>(sql`
    SELECT count(*) FILTER (WHERE chain_seq IS NULL) AS unsealed, coalesce(max(chain_seq), 0) AS "lastSeq",
      coalesce((SELECT max(to_seq) FROM audit_seals), 0) AS "sealedTo" FROM audit_log`);
  if (counts === undefined) throw new Error("an aggregate has no row");
  let verified = 0n;
  let head = emptyChain;
  let root: Buffer | undefined;
  const verdict = (fault?: AuditFault): AuditVerdict => ({
    verifiedRows: verified,
    unsealedRows: counts.unsealed,
    root: root?.toString("hex") ?? "",
    fault,
  });
  while (verified < counts.sealedTo) {
    const seals = await db.query<Seal>(sql`
      SELECT from_seq AS "from", to_seq AS "to", root, prev FROM audit_seals WHERE from_seq > ${verified} ORDER BY from_seq LIMIT ${sealsAtOnce}`);
    if (seals.length === 0) return verdict({ seq: verified + 1n, code: "SEAL_BROKEN" });
    for (const seal of seals) {
      const checked = await checkSeal(db, seal, { seq: verified, hash: head, root });
      if ("code" in checked) return verdict(checked);
      ({ hash: head, root } = checked);
      verified = seal.to;
    }
  }
  return verdict(counts.lastSeq > counts.sealedTo ? { seq: counts.sealedTo + 1n, code: "ROW_UNSEALED" } : undefined);
}

async function checkSeal(
  db: Queryable,
  seal: Seal,
  before: { readonly seq: bigint; readonly hash: Buffer; readonly root: Buffer | undefined },
): Promise<AuditFault | { readonly hash: Buffer; readonly root: Buffer }> {
  const broken: AuditFault = { seq: before.seq + 1n, code: "SEAL_BROKEN" };
  const follows = before.root === undefined ? seal.prev === null : seal.prev?.equals(before.root) === true;
  if (seal.from !== before.seq + 1n || seal.to < seal.from || !follows) return broken;
  const rows = await db.query<{ seq: bigint; hash: Buffer; canonical: string }>(sql`
    SELECT a.chain_seq AS seq, a.hash, ${canonicalRow} AS canonical FROM audit_log a
    WHERE a.chain_seq BETWEEN ${seal.from} AND ${seal.to} ORDER BY a.chain_seq`);
  let hash = before.hash;
  let seq = seal.from;
  for (const row of rows) {
    if (row.seq !== seq) break;
    hash = rowHash(hash, seq, row.canonical);
    if (!hash.equals(row.hash)) return { seq, code: "ROW_CHANGED" };
    seq += 1n;
  }
  if (seq <= seal.to) return { seq, code: "ROW_MISSING" };
  const root = sealRoot(
    before.root ?? emptyChain,
    rows.map((row) => row.hash),
  );
  return root.equals(seal.root) ? { hash, root } : broken;
}
