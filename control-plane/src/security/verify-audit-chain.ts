import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { canonicalRow, emptyChain, rowHash, sealRoot, sealRowsMax } from "./audit-chain.ts";

/** Which part of the chain is looked at; by default all of it. */
export interface AuditRange {
  /** Number of a row: what is looked at begins with the seal that holds it. Default: the first. */
  readonly fromSeq?: bigint;
  /**
   * Root (hex) that was noted for the seal that ends before `fromSeq`: shows that the log was not cut off and made
   * anew since then.
   */
  readonly rootBefore?: string;
  /** No seal is begun after so many rows. */
  readonly rowsMax?: bigint;
}

/** Whether the audit log is as it was written. */
export interface AuditVerdict {
  /** Number of the first row that was looked at. */
  readonly fromSeq: bigint;
  /** Rows that were found as they were sealed, up to the first fault. */
  readonly verifiedRows: bigint;
  /** Rows that have no place in the chain yet. */
  readonly unsealedRows: bigint;
  /** Root of the last seal that holds (hex); empty without any. Noted elsewhere it proves the log up to there. */
  readonly root: string;
  /** Where to go on; undefined at the end of the chain and at a fault. */
  readonly nextSeq: bigint | undefined;
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
   * `ROOT_DIFFERS`: the seal that ends before this row is not there or has another root than the one that was noted.
   */
  readonly code: "ROW_MISSING" | "ROW_CHANGED" | "SEAL_BROKEN" | "ROW_UNSEALED" | "ROOT_DIFFERS";
}

interface Seal {
  readonly from: bigint;
  readonly to: bigint;
  readonly root: Buffer;
  readonly prev: Buffer | null;
}

/** The chain up to a row. */
interface Head {
  readonly seq: bigint;
  readonly hash: Buffer;
  /** Number with which the seal begins that ends here. */
  readonly sealFrom: bigint;
  /** Undefined before the first seal. */
  readonly root: Buffer | undefined;
}

/** Before every number that the column can hold. */
const beforeAll = -(2n ** 63n);
const chainStart: Head = { seq: 0n, hash: emptyChain, sealFrom: beforeAll, root: undefined };

const sealsAtOnce = 100;

/**
 * Computes the chain and its seals anew and finds any row that was changed, deleted, inserted or moved since it was
 * sealed. A part that does not begin with the first row takes what is before it as given. Whoever can write to both
 * tables can also compute a new chain over a forged log: only a root that was noted outside of the database shows
 * that. Without a range every row is read; minutes for millions. Call it in a transaction with one snapshot.
 */
export async function verifyAuditChain(db: Queryable, range: AuditRange = {}): Promise<AuditVerdict> {
  const [counts] = await db.query<{ unsealed: bigint }>(
    sql`SELECT count(*) AS unsealed FROM audit_log WHERE chain_seq IS NULL`,
  );
  if (counts === undefined) throw new Error("an aggregate has no row");
  const begin = await findBeginning(db, range);
  let head = "code" in begin ? undefined : begin;
  const fromSeq = "code" in begin ? begin.seq : begin.seq + 1n;
  const verdict = (rest: { fault?: AuditFault | undefined; nextSeq?: bigint }): AuditVerdict => ({
    fromSeq,
    verifiedRows: head === undefined ? 0n : head.seq + 1n - fromSeq,
    unsealedRows: counts.unsealed,
    root: head?.root?.toString("hex") ?? "",
    nextSeq: rest.nextSeq,
    fault: rest.fault,
  });
  if ("code" in begin) return verdict({ fault: begin });
  head = begin;
  for (;;) {
    const seals = await db.query<Seal>(sql`
      SELECT ${sealColumns} FROM audit_seals WHERE from_seq > ${head.sealFrom} ORDER BY from_seq LIMIT ${sealsAtOnce}`);
    if (seals.length === 0) return verdict({ fault: await findUnsealed(db, head.seq) });
    for (const seal of seals) {
      if (range.rowsMax !== undefined && head.seq + 1n - fromSeq >= range.rowsMax)
        return verdict({ nextSeq: head.seq + 1n });
      const checked = await checkSeal(db, seal, head);
      if ("code" in checked) return verdict({ fault: checked });
      head = checked;
    }
  }
}

const sealColumns = sql`from_seq AS "from", to_seq AS "to", root, prev`;

/** The chain before the range, as the tables have it. */
async function findBeginning(db: Queryable, { fromSeq = 1n, rootBefore }: AuditRange): Promise<Head | AuditFault> {
  const [holding] = await db.query<Seal>(sql`
    SELECT ${sealColumns} FROM audit_seals WHERE from_seq <= ${fromSeq} ORDER BY from_seq DESC LIMIT 1`);
  const isBeyond = holding !== undefined && holding.to < fromSeq;
  const seq = holding === undefined ? 0n : isBeyond ? holding.to : holding.from - 1n;
  if (rootBefore !== undefined && seq !== fromSeq - 1n) return { seq: fromSeq, code: "ROOT_DIFFERS" };
  if (seq < 1n) return chainStart;
  const [before] = isBeyond
    ? [holding]
    : await db.query<Seal>(sql`
        SELECT ${sealColumns} FROM audit_seals WHERE from_seq < ${seq + 1n} ORDER BY from_seq DESC LIMIT 1`);
  if (before?.to !== seq) return { seq: seq + 1n, code: "SEAL_BROKEN" };
  if (rootBefore !== undefined && before.root.toString("hex") !== rootBefore) {
    return { seq: fromSeq, code: "ROOT_DIFFERS" };
  }
  const [row] = await db.query<{ hash: Buffer | null }>(sql`SELECT hash FROM audit_log WHERE chain_seq = ${seq}`);
  if (row === undefined) return { seq, code: "ROW_MISSING" };
  if (row.hash === null) return { seq, code: "ROW_CHANGED" };
  return { seq, hash: row.hash, sealFrom: before.from, root: before.root };
}

/** A row with a number that no seal covers. */
async function findUnsealed(db: Queryable, sealedTo: bigint): Promise<AuditFault | undefined> {
  const [row] = await db.query<{ seq: bigint }>(sql`
    SELECT chain_seq AS seq FROM audit_log WHERE chain_seq > ${sealedTo}
    UNION ALL SELECT chain_seq FROM audit_log WHERE chain_seq < 1 ORDER BY seq LIMIT 1`);
  return row === undefined ? undefined : { seq: row.seq, code: "ROW_UNSEALED" };
}

async function checkSeal(db: Queryable, seal: Seal, before: Head): Promise<AuditFault | Head> {
  const broken: AuditFault = { seq: before.seq + 1n, code: "SEAL_BROKEN" };
  const follows = before.root === undefined ? seal.prev === null : seal.prev?.equals(before.root) === true;
  // No seal was ever made over more rows: one that says so shall not make us read the whole log at once.
  const isOfSize = seal.to >= seal.from && seal.to - seal.from < BigInt(sealRowsMax);
  if (seal.from !== before.seq + 1n || !isOfSize || !follows) return broken;
  const rows = await db.query<{ seq: bigint; hash: Buffer | null; canonical: string }>(sql`
    SELECT a.chain_seq AS seq, a.hash, ${canonicalRow} AS canonical FROM audit_log a
    WHERE a.chain_seq BETWEEN ${seal.from} AND ${seal.to} ORDER BY a.chain_seq`);
  const hashes: Buffer[] = [];
  let hash = before.hash;
  let seq = seal.from;
  for (const row of rows) {
    if (row.seq !== seq) break;
    hash = rowHash(hash, seq, row.canonical);
    if (row.hash === null || !hash.equals(row.hash)) return { seq, code: "ROW_CHANGED" };
    hashes.push(hash);
    seq += 1n;
  }
  if (seq <= seal.to) return { seq, code: "ROW_MISSING" };
  const root = sealRoot(before.root ?? emptyChain, hashes);
  return root.equals(seal.root) ? { seq: seal.to, hash, sealFrom: seal.from, root } : broken;
}
