import { BlockList, isIP, isIPv4 } from "node:net";
import { DomainError } from "@cloudpods/shared/errors";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Caller } from "./actor.ts";
import type { PlatformRole, Scope, TenantRole } from "./scopes.ts";
import { credentialKindOf, sha256Of } from "./secret-token.ts";

/** A session that is not used for this long is over. */
export const sessionIdleMs = 12 * 60 * 60 * 1_000;
/** A session is over this long after its sign-in, used or not. */
export const sessionAgeMaxMs = 30 * 24 * 60 * 60 * 1_000;

// Written at most this often per credential, so that reading costs no write.
const touchAfterMs = 60_000;

/** A caller and, for a session, the hash of the CSRF token that its cookie needs beside it. */
export interface Authenticated {
  readonly caller: Caller;
  readonly csrfSha256: Buffer | undefined;
}

interface UserRow {
  readonly user_id: string;
  readonly email: string;
  readonly platform_role: PlatformRole;
  readonly is_active: boolean;
  readonly memberships: { tenantId: string; role: TenantRole }[];
}

interface SessionRow extends UserRow {
  readonly id: string;
  readonly csrf_sha256: Buffer | null;
  readonly last_used_at: Date;
  readonly idle_expires_at: Date;
  readonly expires_at: Date;
  readonly revoked_at: Date | null;
}

interface TokenRow extends UserRow {
  readonly id: string;
  readonly tenant_id: string;
  readonly scopes: Scope[];
  readonly allowed_cidrs: string[];
  readonly last_used_at: Date | null;
  readonly expires_at: Date | null;
  readonly revoked_at: Date | null;
}

const userColumns = sql`u.id AS user_id, u.email, u.platform_role, u.is_active,
  coalesce((SELECT jsonb_agg(jsonb_build_object('tenantId', m.tenant_id, 'role', m.role) ORDER BY m.created_at, m.tenant_id)
              FROM memberships m WHERE m.user_id = u.id), '[]') AS memberships`;

/**
 * Who shows this session or API token. Always asks the database: a revoked one is refused by the very next
 * request, on every replica.
 *
 * @throws DomainError `unauthenticated` CREDENTIAL_INVALID (unknown, revoked, user switched off) or
 *   CREDENTIAL_EXPIRED; `forbidden` ADDRESS_NOT_ALLOWED.
 */
export async function authenticate(
  system: Database,
  secret: string,
  address: string | undefined,
  now: Date,
): Promise<Authenticated> {
  const kind = credentialKindOf(secret);
  if (kind === undefined) throw invalid();
  return kind === "session" ? await ofSession(system, secret, now) : await ofToken(system, secret, address, now);
}

async function ofSession(system: Database, secret: string, now: Date): Promise<Authenticated> {
  const [row] = await system.query<SessionRow>(sql`
    SELECT s.id, s.csrf_sha256, s.last_used_at, s.idle_expires_at, s.expires_at, s.revoked_at, ${userColumns}
      FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.token_sha256 = ${sha256Of(secret)}`);
  if (row === undefined || row.revoked_at !== null || !row.is_active) throw invalid();
  if (row.idle_expires_at <= now || row.expires_at <= now) throw expired();
  if (now.getTime() - row.last_used_at.getTime() > touchAfterMs) {
    const idleUntil = new Date(Math.min(now.getTime() + sessionIdleMs, row.expires_at.getTime()));
    await system.execute(
      sql`UPDATE sessions SET last_used_at = ${now}, idle_expires_at = ${idleUntil} WHERE id = ${row.id}`,
    );
  }
  const caller: Caller = { kind: "user", id: row.user_id, ...userOf(row), credential: { kind: "session", id: row.id } };
  return { caller, csrfSha256: row.csrf_sha256 ?? undefined };
}

async function ofToken(
  system: Database,
  secret: string,
  address: string | undefined,
  now: Date,
): Promise<Authenticated> {
  const [row] = await system.query<TokenRow>(sql`
    SELECT t.id, t.tenant_id, t.scopes, t.allowed_cidrs::text[], t.last_used_at, t.expires_at, t.revoked_at, ${userColumns}
      FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE t.token_sha256 = ${sha256Of(secret)}`);
  if (row === undefined || row.revoked_at !== null || !row.is_active) throw invalid();
  if (row.expires_at !== null && row.expires_at <= now) throw expired();
  if (!isAddressAllowed(address, row.allowed_cidrs)) {
    throw new DomainError("forbidden", "ADDRESS_NOT_ALLOWED", "This API token may not be used from this address.");
  }
  if (row.last_used_at === null || now.getTime() - row.last_used_at.getTime() > touchAfterMs) {
    await system.execute(sql`UPDATE api_tokens SET last_used_at = ${now} WHERE id = ${row.id}`);
  }
  const credential = { kind: "token", id: row.id, tenantId: row.tenant_id, scopes: new Set(row.scopes) } as const;
  return { caller: { kind: "token", id: row.id, ...userOf(row), credential }, csrfSha256: undefined };
}

/** Whether an address lies in one of the networks; every address does when there are none. */
export function isAddressAllowed(address: string | undefined, cidrs: readonly string[]): boolean {
  if (cidrs.length === 0) return true;
  if (address === undefined || isIP(address) === 0) return false;
  return networksOf(cidrs).check(address, isIPv4(address) ? "ipv4" : "ipv6");
}

/** A list of networks in CIDR notation, to check addresses against. */
export function networksOf(cidrs: readonly string[]): BlockList {
  const networks = new BlockList();
  for (const cidr of cidrs) {
    const [network = "", bits] = cidr.split("/");
    const family = isIPv4(network) ? "ipv4" : "ipv6";
    networks.addSubnet(network, Number(bits ?? (family === "ipv4" ? 32 : 128)), family);
  }
  return networks;
}

function userOf(row: UserRow) {
  return { userId: row.user_id, email: row.email, platformRole: row.platform_role, memberships: row.memberships };
}

function invalid(): DomainError {
  return new DomainError("unauthenticated", "CREDENTIAL_INVALID", "The session or API token is not valid.");
}

function expired(): DomainError {
  return new DomainError("unauthenticated", "CREDENTIAL_EXPIRED", "The session or API token has expired.");
}
