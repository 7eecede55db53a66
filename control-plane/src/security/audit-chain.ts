import { createHash } from "node:crypto";
import { sql } from "../platform/sql.ts";

/** The head of a chain that has no member yet. */
export const emptyChain: Buffer = Buffer.alloc(32);

/** How many rows one seal is over at most. */
export const sealRowsMax = 2_000;

/**
 * The text of a row of `audit_log a` that is hashed: an array of everything that says who did what when, in a
 * fixed order, as PostgreSQL writes `jsonb`. The time is in microseconds since 1970, because the text of a
 * timestamp depends on the session's time zone.
 */
export const canonicalRow = sql`jsonb_build_array(a.id, (extract(epoch FROM a.at) * 1000000)::bigint, a.tenant_id, a.actor_kind, a.actor_id,
  a.request_id, a.action, a.target_type, a.target_id, a.detail)::text`;

/** The hash of a row: SHA-256 of the hash of the row before, the row's number in decimal, a newline, and the row's text. */
export function rowHash(before: Buffer, seq: bigint, canonical: string): Buffer {
  return createHash("sha256").update(before).update(`${seq}\n`).update(canonical).digest();
}

/** What a seal says of its rows: SHA-256 of the root of the seal before and the hashes of the rows in their order. */
export function sealRoot(before: Buffer, hashes: readonly Buffer[]): Buffer {
  return hashes.reduce((hash, each) => hash.update(each), createHash("sha256").update(before)).digest();
}
