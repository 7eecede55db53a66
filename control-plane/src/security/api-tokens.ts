import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Actor } from "./actor.ts";
import { recordAudit } from "./audit.ts";
import type { Scope } from "./scopes.ts";
import { newApiToken } from "./secret-token.ts";

const dayMs = 24 * 60 * 60 * 1_000;
const defaultLifeMs = 90 * dayMs;
const lifeMaxMs = 366 * dayMs;

/** An API token without its secret. */
export interface ApiToken {
  readonly id: string;
  readonly userId: string;
  readonly name: string;
  /** First characters of the secret, to tell tokens apart. */
  readonly prefix: string;
  readonly scopes: Scope[];
  readonly allowedCidrs: string[];
  readonly expiresAt: Date | null;
  readonly lastUsedAt: Date | null;
  readonly revokedAt: Date | null;
  readonly createdAt: Date;
}

const columns = sql`id, user_id AS "userId", name, prefix, scopes, allowed_cidrs::text[] AS "allowedCidrs", expires_at AS "expiresAt",
  last_used_at AS "lastUsedAt", revoked_at AS "revokedAt", created_at AS "createdAt"`;

/** Who makes, lists or revokes tokens, in the tenant of the transaction. */
export interface TokenOwner {
  readonly actor: Actor;
  readonly userId: string;
  readonly tenantId: string;
  readonly requestId: string;
  readonly now: Date;
  /** What the user may do in the tenant now: a token cannot have more. */
  readonly scopes: ReadonlySet<Scope>;
}

/** What a new token is to be. */
export interface TokenWish {
  readonly name: string;
  readonly scopes: readonly Scope[];
  /** Networks in CIDR notation from which it works; none: from everywhere. */
  readonly allowedCidrs: readonly string[];
  /** Undefined: in 90 days. */
  readonly expiresAt: Date | undefined;
}

/**
 * Makes an API token; its secret is given back here and kept nowhere.
 * @throws DomainError `forbidden` SCOPE_NOT_HELD; `invalid` EXPIRY_OUT_OF_RANGE.
 */
export async function createApiToken(
  tx: Transaction,
  owner: TokenOwner,
  wish: TokenWish,
): Promise<{ token: ApiToken; secret: string }> {
  const excess = wish.scopes.filter((scope) => !owner.scopes.has(scope));
  if (excess.length > 0) {
    throw new DomainError("forbidden", "SCOPE_NOT_HELD", "A token cannot have scopes that its user does not have.", {
      details: { scopes: excess },
    });
  }
  const expiresAt = wish.expiresAt ?? new Date(owner.now.getTime() + defaultLifeMs);
  if (expiresAt <= owner.now || expiresAt.getTime() - owner.now.getTime() > lifeMaxMs) {
    throw new DomainError(
      "invalid",
      "EXPIRY_OUT_OF_RANGE",
      "A token ends in the future and at most 366 days from now.",
      {
        errors: [{ pointer: "/expiresAt", detail: "must be in the future and at most 366 days from now" }],
      },
    );
  }
  const { secret, prefix, sha256 } = newApiToken();
  const scopes = [...new Set(wish.scopes)];
  // `network` clears the host's bits, which the type cidr would refuse.
  const [token] = await tx.query<ApiToken>(sql`
    INSERT INTO api_tokens (id, tenant_id, user_id, name, prefix, token_sha256, scopes, allowed_cidrs, expires_at, created_at)
    VALUES (${newId()}, ${owner.tenantId}, ${owner.userId}, ${wish.name}, ${prefix}, ${sha256}, ${scopes},
            ARRAY(SELECT network(c::inet) FROM unnest(${wish.allowedCidrs}::text[]) c), ${expiresAt}, ${owner.now})
    RETURNING ${columns}`);
  if (token === undefined) throw new Error("INSERT … RETURNING gave no row");
  await audit(tx, owner, "api-token.create", token.id, {
    name: wish.name,
    scopes,
    allowedCidrs: token.allowedCidrs,
    expiresAt,
  });
  return { token, secret };
}

/** Tokens newest first, below `beforeId`: one's own, with the scope SECURITY those of the whole tenant. */
export async function listApiTokens(
  tx: Transaction,
  owner: TokenOwner,
  page: { limit: number; beforeId: string | undefined },
): Promise<ApiToken[]> {
  return await tx.query<ApiToken>(sql`
    SELECT ${columns} FROM api_tokens WHERE tenant_id = ${owner.tenantId} AND ${ownOrAll(owner)}
      AND (${page.beforeId ?? null}::uuid IS NULL OR id < ${page.beforeId ?? null}::uuid)
    ORDER BY id DESC LIMIT ${page.limit + 1}`);
}

/**
 * Ends a token at once; ending it twice is no fault.
 * @throws DomainError `not-found` TOKEN_UNKNOWN.
 */
export async function revokeApiToken(tx: Transaction, owner: TokenOwner, id: string): Promise<ApiToken> {
  const [token] = await tx.query<ApiToken>(sql`
    UPDATE api_tokens SET revoked_at = coalesce(revoked_at, ${owner.now})
     WHERE id = ${id} AND tenant_id = ${owner.tenantId} AND ${ownOrAll(owner)} RETURNING ${columns}`);
  if (token === undefined) throw new DomainError("not-found", "TOKEN_UNKNOWN", "There is no such API token.");
  await audit(tx, owner, "api-token.revoke", id, { name: token.name });
  return token;
}

/** Ends all API tokens of a user, in every tenant; tells how many. */
export async function endApiTokens(system: Transaction, userId: string): Promise<number> {
  return await system.execute(
    sql`UPDATE api_tokens SET revoked_at = now() WHERE user_id = ${userId} AND revoked_at IS NULL`,
  );
}

function ownOrAll(owner: TokenOwner) {
  return owner.scopes.has("SECURITY") ? sql`TRUE` : sql`user_id = ${owner.userId}`;
}

async function audit(
  tx: Transaction,
  owner: TokenOwner,
  action: string,
  id: string,
  detail: Record<string, unknown>,
): Promise<void> {
  const { actor, requestId, tenantId } = owner;
  await recordAudit(tx, { actor, requestId, tenantId, action, targetType: "api-token", targetId: id, detail });
}
