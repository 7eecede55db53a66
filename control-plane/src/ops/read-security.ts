import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** How safe the platform is, as far as the database knows. */
export interface SecurityPosture {
  readonly users: {
    readonly active: number;
    readonly withoutVerifiedEmail: number;
    readonly administrators: number;
    readonly operators: number;
    readonly liveSessions: number;
  };
  readonly apiTokens: { readonly live: number; readonly withoutExpiry: number; readonly unusedFor90Days: number };
  readonly signIns: {
    readonly failedInLastHour: number;
    readonly blockedAccounts: number;
    readonly blockedAddresses: number;
  };
  readonly certificates: {
    readonly authorityExpiresAt: Date | null;
    readonly expiring: readonly { id: string; name: string; expiresAt: Date }[];
    readonly revokedNodes: readonly { id: string; name: string }[];
  };
  readonly audit: SealState;
}

/** How far the chain of the audit log is behind, and whether it holds. */
export interface SealState {
  readonly unsealedRows: number;
  readonly sealLagSeconds: number;
  readonly lastSealAt: Date | null;
  readonly lastVerifiedAt: Date | null;
  /** When all of it was found as it was sealed, from the first row on. */
  readonly wholeVerifiedAt: Date | null;
  /** Null: nobody has looked yet. */
  readonly intact: boolean | null;
  readonly fault: { readonly seq: string; readonly code: string } | null;
}

const hostsShown = 20;

/** Reads the security posture. */
export async function readSecurity(db: Queryable): Promise<SecurityPosture> {
  const [users, apiTokens, signIns, certificates, audit] = await Promise.all([
    readUsers(db),
    readTokens(db),
    readSignIns(db),
    readCertificates(db),
    readSealState(db),
  ]);
  return { users, apiTokens, signIns, certificates, audit };
}

async function readUsers(db: Queryable): Promise<SecurityPosture["users"]> {
  return only(
    await db.query<SecurityPosture["users"]>(sql`
      SELECT count(*)::integer AS active, count(*) FILTER (WHERE email_verified_at IS NULL)::integer AS "withoutVerifiedEmail",
        count(*) FILTER (WHERE platform_role = 'ADMINISTRATOR')::integer AS administrators,
        count(*) FILTER (WHERE platform_role = 'OPERATOR')::integer AS operators,
        (SELECT count(*)::integer FROM sessions
         WHERE revoked_at IS NULL AND expires_at > now() AND idle_expires_at > now()) AS "liveSessions"
      FROM users WHERE is_active`),
  );
}

async function readTokens(db: Queryable): Promise<SecurityPosture["apiTokens"]> {
  return only(
    await db.query<SecurityPosture["apiTokens"]>(sql`
      SELECT count(*)::integer AS live, count(*) FILTER (WHERE expires_at IS NULL)::integer AS "withoutExpiry",
        count(*) FILTER (WHERE coalesce(last_used_at, created_at) < now() - interval '90 days')::integer AS "unusedFor90Days"
      FROM api_tokens WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())`),
  );
}

/** Failures count by account and, as the account `*`, once more by address. */
async function readSignIns(db: Queryable): Promise<SecurityPosture["signIns"]> {
  return only(
    await db.query<SecurityPosture["signIns"]>(sql`
      SELECT coalesce(sum(failures) FILTER (WHERE account <> '*'), 0)::integer AS "failedInLastHour",
        count(*) FILTER (WHERE account <> '*' AND blocked_until > now())::integer AS "blockedAccounts",
        count(*) FILTER (WHERE account = '*' AND blocked_until > now())::integer AS "blockedAddresses"
      FROM login_throttles WHERE updated_at > now() - interval '1 hour'`),
  );
}

async function readCertificates(db: Queryable): Promise<SecurityPosture["certificates"]> {
  // Certificates are kept for ever: first those hosts are found that have none for much longer, then the last one of each.
  const [hosts, [authority]] = await Promise.all([
    db.query<{ id: string; name: string; expiresAt: Date; revoked: boolean }>(sql`
      SELECT n.id, n.name, c.not_after AS "expiresAt", c.revoked_at IS NOT NULL AS revoked FROM nodes n CROSS JOIN LATERAL (
        SELECT not_after, revoked_at FROM node_certificates c WHERE c.node_id = n.id ORDER BY c.issued_at DESC LIMIT 1) c
      WHERE n.removed_at IS NULL AND n.id NOT IN (
        SELECT node_id FROM node_certificates WHERE revoked_at IS NULL AND not_after > now() + interval '7 days')
      ORDER BY c.not_after, n.name`),
    db.query<{ expiresAt: Date }>(
      sql`SELECT not_after AS "expiresAt" FROM certificate_authorities WHERE state = 'active'`,
    ),
  ]);
  const expiring = hosts.filter(({ revoked }) => !revoked).slice(0, hostsShown);
  const revokedNodes = hosts.filter(({ revoked }) => revoked).slice(0, hostsShown);
  return { authorityExpiresAt: authority?.expiresAt ?? null, expiring, revokedNodes };
}

/** How many rows of the audit log wait for their place in the chain, and since when. */
export async function readSealState(db: Queryable): Promise<SealState> {
  return only(
    await db.query<SealState>(sql`
      SELECT count(*)::integer AS "unsealedRows", coalesce(extract(epoch FROM now() - min(at)), 0)::integer AS "sealLagSeconds",
        (SELECT sealed_at FROM audit_seals ORDER BY from_seq DESC LIMIT 1) AS "lastSealAt",
        (SELECT verified_at FROM audit_proof) AS "lastVerifiedAt", (SELECT whole_at FROM audit_proof) AS "wholeVerifiedAt",
        (SELECT fault_code IS NULL FROM audit_proof WHERE verified_at IS NOT NULL) AS intact,
        (SELECT json_build_object('seq', fault_seq::text, 'code', fault_code) FROM audit_proof WHERE fault_code IS NOT NULL) AS fault
      FROM audit_log WHERE chain_seq IS NULL`),
  );
}

function only<Row>([row]: readonly Row[]): Row {
  if (row === undefined) throw new Error("an aggregate has no row");
  return row;
}
