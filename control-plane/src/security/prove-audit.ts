import type { Database, Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { verifyAuditChain, type AuditFault, type AuditVerdict } from "./verify-audit-chain.ts";

/** What is known of the log before a look; numbers are those of the next row. */
interface Proof {
  readonly tailSeq: bigint;
  readonly tailRoot: string | null;
  readonly walkSeq: bigint | null;
  readonly walkRoot: string | null;
  readonly wasWhole: boolean;
  readonly walkIsDue: boolean;
  readonly version: number;
}

/** How much of a log one look reads at most, once for what is new and once for what is old. */
const rowsOfLook = 20_000n;

/**
 * Proves what was sealed since the last look, beginning with the root that was found then, so that an end that was cut
 * off shows too, and a part of the walk over the whole log, which begins once a day. What is found stays beside the log
 * for the overview. A fault stays until the log is again as it was.
 */
export async function proveAudit(db: Database, rowsMax: bigint = rowsOfLook): Promise<AuditFault | undefined> {
  const { proof, tail, walk } = await db.transaction((tx) => look(tx, rowsMax));
  const fault = tail.fault ?? walk?.fault;
  const tailSeq = tail.fromSeq + tail.verifiedRows;
  const walkedTo = walk === undefined ? undefined : walk.fromSeq + walk.verifiedRows;
  const isTailWhole = tail.nextSeq === undefined && !proof.wasWhole;
  const isWalkOver = walkedTo !== undefined && walkedTo >= tailSeq;
  const walkSeq = walkedTo === undefined || isWalkOver ? null : walkedTo;
  // Whoever looked at the same time and was faster has written the same.
  await db.execute(
    fault === undefined
      ? sql`
        UPDATE audit_proof SET tail_seq = ${tailSeq}, tail_root = ${rootOf(tail)}, walk_seq = ${walkSeq},
          walk_root = ${walk === undefined || walkSeq === null ? null : rootOf(walk)}, verified_at = now(),
          whole_at = CASE WHEN ${isTailWhole || isWalkOver} THEN now() ELSE whole_at END, fault_seq = NULL, fault_code = NULL, version = version + 1
        WHERE version = ${proof.version}`
      : sql`
        UPDATE audit_proof SET verified_at = now(), fault_seq = ${fault.seq}, fault_code = ${fault.code}, version = version + 1
        WHERE version = ${proof.version}`,
  );
  return fault;
}

/**
 * Lets the walk over the whole log begin at the next look, not once a day only: somebody has found a fault, which the
 * overview shall show too. One that is under way goes on, unless it has passed that row.
 */
export async function walkAtOnce(db: Queryable, { seq }: AuditFault): Promise<void> {
  // With another version a look of this very moment writes nothing, and does not end the walk before it began.
  await db.execute(sql`
    UPDATE audit_proof SET walk_seq = 1, walk_root = NULL, version = version + 1 WHERE walk_seq IS NULL OR walk_seq > ${seq}`);
}

async function look(tx: Transaction, rowsMax: bigint) {
  // Rows are sealed while we read.
  await tx.execute(sql`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY`);
  const [proof] = await tx.query<Proof>(sql`
    SELECT tail_seq AS "tailSeq", tail_root AS "tailRoot", walk_seq AS "walkSeq", walk_root AS "walkRoot", whole_at IS NOT NULL AS "wasWhole",
      coalesce(whole_at < now() - interval '1 day', false) AS "walkIsDue", version FROM audit_proof`);
  if (proof === undefined) throw new Error("the row of audit_proof is gone");
  const tail = await verifyAuditChain(tx, rangeFrom(proof.tailSeq, proof.tailRoot, rowsMax));
  const walkSeq = proof.walkSeq ?? (proof.walkIsDue ? 1n : null);
  const walk = walkSeq === null ? undefined : await verifyAuditChain(tx, rangeFrom(walkSeq, proof.walkRoot, rowsMax));
  return { proof, tail, walk };
}

function rangeFrom(fromSeq: bigint, root: string | null, rowsMax: bigint) {
  return { fromSeq, rowsMax, ...(root === null ? {} : { rootBefore: root }) };
}

/** Before the first seal there is none. */
function rootOf({ root }: AuditVerdict): string | null {
  return root === "" ? null : root;
}
