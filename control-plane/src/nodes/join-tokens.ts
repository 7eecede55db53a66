import { createHash, randomBytes } from "node:crypto";
import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { nodeNotFound } from "./find-node.ts";

/** What a host becomes when it joins with the token. */
export interface NewJoinToken {
  /** Name of the host. */
  readonly name: string;
  readonly role: string;
  readonly region: string;
  readonly labels: Readonly<Record<string, string>>;
  /** The host takes over this node's identity; all earlier certificates of it are revoked then. */
  readonly replacesNode?: string | undefined;
  readonly createdBy: string;
}

/** A token as lists show it. */
export interface JoinToken {
  readonly id: string;
  readonly name: string;
  readonly role: string;
  readonly region: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly replacesNode: string | null;
  readonly createdBy: string | null;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly usedAt: Date | null;
  readonly revokedAt: Date | null;
  /** The host that joined with it. */
  readonly nodeId: string | null;
}

const lifeMinutes = 15;

const columns = sql`id, name, role, region, labels, replaces_node AS "replacesNode", created_by AS "createdBy", created_at AS "createdAt",
  expires_at AS "expiresAt", used_at AS "usedAt", revoked_at AS "revokedAt", node_id AS "nodeId"`;

/**
 * Makes a token for one host and 15 minutes. Its text `cp1.<id>.<secret>.<SHA-256 of the authority's key>` is
 * shown once: only a hash of the secret is kept. The pinned authority lets the host see through a false
 * control plane, even over plain HTTP.
 *
 * @throws DomainError `already-exists` NODE_NAME_TAKEN; `not-found` NODE_NOT_FOUND for `replacesNode`.
 */
export async function createJoinToken(
  tx: Transaction,
  input: NewJoinToken,
  authority: { readonly spkiSha256: string },
): Promise<{ token: JoinToken; text: string }> {
  await refuseTakenName(tx, input);
  const id = newId();
  const secret = randomBytes(24).toString("base64url");
  const [token] = await tx.query<JoinToken>(sql`
    INSERT INTO join_tokens (id, secret_sha256, name, role, region, labels, replaces_node, created_by, expires_at)
    VALUES (${id}, ${createHash("sha256").update(secret, "utf8").digest()}, ${input.name}, ${input.role}, ${input.region},
      ${JSON.stringify(input.labels)}, ${input.replacesNode ?? null}, ${input.createdBy}, now() + ${lifeMinutes} * interval '1 minute')
    RETURNING ${columns}`);
  if (token === undefined) throw new Error("a join token that was inserted was not returned");
  return { token, text: `cp1.${id}.${secret}.${authority.spkiSha256}` };
}

async function refuseTakenName(tx: Transaction, input: NewJoinToken): Promise<void> {
  const [holder] = await tx.query<{ id: string }>(
    sql`SELECT id FROM nodes WHERE name = ${input.name} AND removed_at IS NULL`,
  );
  if (holder !== undefined && holder.id !== input.replacesNode) {
    throw new DomainError(
      "already-exists",
      "NODE_NAME_TAKEN",
      `A node is named "${input.name}" already; replace it or choose another name.`,
    );
  }
  if (input.replacesNode === undefined) return;
  const [replaced] = await tx.query(sql`SELECT FROM nodes WHERE id = ${input.replacesNode} AND removed_at IS NULL`);
  if (replaced === undefined) throw nodeNotFound();
}

/** Newest first; `beforeId` is the last one of the page before. */
export async function listJoinTokens(
  db: Queryable,
  page: { limit: number; beforeId?: string | undefined },
): Promise<JoinToken[]> {
  return await db.query<JoinToken>(sql`
    SELECT ${columns} FROM join_tokens
    WHERE ${page.beforeId ?? null}::uuid IS NULL OR id < ${page.beforeId ?? null}
    ORDER BY id DESC LIMIT ${page.limit}`);
}

/** Makes a token useless. @throws DomainError `not-found` JOIN_TOKEN_NOT_FOUND; `wrong-state` JOIN_TOKEN_USED. */
export async function revokeJoinToken(tx: Transaction, id: string): Promise<void> {
  const [token] = await tx.query<{ usedAt: Date | null }>(sql`
    UPDATE join_tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = ${id} RETURNING used_at AS "usedAt"`);
  if (token === undefined) throw new DomainError("not-found", "JOIN_TOKEN_NOT_FOUND", "There is no such join token.");
  if (token.usedAt !== null) {
    // The transaction is rolled back: the token's history stays as it was.
    throw new DomainError(
      "wrong-state",
      "JOIN_TOKEN_USED",
      "A host has joined with this token; remove the node instead.",
    );
  }
}
