import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Database, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "./audit.ts";
import { sessionAgeMaxMs, sessionIdleMs } from "./authenticate.ts";
import { countAttempt, forgiveAttempts } from "./login-throttle.ts";
import { hashPassword, verifyPassword } from "./password.ts";
import { newSecretToken } from "./secret-token.ts";

/** Where a request came from, and when. */
export interface Visit {
  readonly requestId: string;
  readonly now: Date;
  readonly address: string | undefined;
  readonly userAgent: string | undefined;
}

/** A session with its secrets, which are shown to its owner once. */
export interface NewSession {
  readonly sessionId: string;
  readonly userId: string;
  readonly token: string;
  readonly csrfToken: string;
  readonly idleExpiresAt: Date;
  readonly expiresAt: Date;
}

/**
 * Signs a user in with his password. An unknown address, a wrong password and a user who is switched off
 * look and take the same.
 *
 * @throws DomainError `unauthenticated` SIGN_IN_FAILED, `rate-limited` TOO_MANY_SIGN_INS, `unavailable` SIGN_IN_BUSY.
 */
export async function signIn(
  system: Database,
  credentials: { email: string; password: string },
  visit: Visit,
): Promise<NewSession> {
  const attempt = { account: credentials.email, address: visit.address };
  await countAttempt(system, attempt, visit.now);
  const [user] = await system.query<{ id: string; password_hash: string; is_active: boolean }>(
    sql`SELECT id, password_hash, is_active FROM users WHERE lower(email) = lower(${credentials.email})`,
  );
  const isRight = await verifyPassword(credentials.password, user?.password_hash);
  if (user === undefined || !isRight || !user.is_active) throw signInFailed();
  return await system.transaction(async (tx) => {
    // Hashing takes a while: whoever was switched off or given another password meanwhile keeps no session of before.
    const unchanged = await tx.query(sql`
      SELECT FROM users WHERE id = ${user.id} AND is_active AND password_hash = ${user.password_hash} FOR SHARE`);
    if (unchanged.length === 0) throw signInFailed();
    await forgiveAttempts(tx, attempt);
    return await openSession(tx, user.id, visit);
  });
}

function signInFailed(): DomainError {
  return new DomainError("unauthenticated", "SIGN_IN_FAILED", "The e-mail address or the password is wrong.");
}

async function openSession(tx: Transaction, userId: string, visit: Visit): Promise<NewSession> {
  const [session, csrf, sessionId] = [newSecretToken(), newSecretToken(), newId()];
  const idleExpiresAt = new Date(visit.now.getTime() + sessionIdleMs);
  const expiresAt = new Date(visit.now.getTime() + sessionAgeMaxMs);
  await tx.execute(sql`
    INSERT INTO sessions (id, user_id, token_sha256, csrf_sha256, user_agent, ip, created_at, last_used_at, idle_expires_at, expires_at)
    VALUES (${sessionId}, ${userId}, ${session.sha256}, ${csrf.sha256}, ${visit.userAgent ?? null}, ${visit.address ?? null},
            ${visit.now}, ${visit.now}, ${idleExpiresAt}, ${expiresAt})`);
  await auditSession(tx, "session.create", userId, sessionId, visit.requestId);
  return { sessionId, userId, token: session.secret, csrfToken: csrf.secret, idleExpiresAt, expiresAt };
}

/** Gives a session new secrets; the old ones are worth nothing from the commit on. Its end does not move beyond 30 days. */
export async function rotateSession(tx: Transaction, sessionId: string, visit: Visit): Promise<NewSession> {
  const [session, csrf] = [newSecretToken(), newSecretToken()];
  const idle = new Date(visit.now.getTime() + sessionIdleMs);
  const [row] = await tx.query<{ user_id: string; idle_expires_at: Date; expires_at: Date }>(sql`
    UPDATE sessions SET token_sha256 = ${session.sha256}, csrf_sha256 = ${csrf.sha256}, last_used_at = ${visit.now},
           idle_expires_at = least(${idle}::timestamptz, expires_at)
     WHERE id = ${sessionId} AND revoked_at IS NULL RETURNING user_id, idle_expires_at, expires_at`);
  if (row === undefined)
    throw new DomainError("unauthenticated", "CREDENTIAL_INVALID", "The session is not valid any more.");
  await auditSession(tx, "session.refresh", row.user_id, sessionId, visit.requestId);
  return {
    sessionId,
    userId: row.user_id,
    token: session.secret,
    csrfToken: csrf.secret,
    idleExpiresAt: row.idle_expires_at,
    expiresAt: row.expires_at,
  };
}

/**
 * Ends a session of a user; ending it twice is no fault.
 * @throws DomainError `not-found` SESSION_UNKNOWN, also for a session of somebody else.
 */
export async function revokeSession(tx: Transaction, userId: string, sessionId: string, visit: Visit): Promise<void> {
  const known = await tx.execute(sql`
    UPDATE sessions SET revoked_at = coalesce(revoked_at, ${visit.now}) WHERE id = ${sessionId} AND user_id = ${userId}`);
  if (known === 0) throw new DomainError("not-found", "SESSION_UNKNOWN", "There is no such session.");
  await auditSession(tx, "session.revoke", userId, sessionId, visit.requestId);
}

/** Ends all sessions of a user except the one given; tells how many. */
export async function revokeOtherSessions(
  tx: Transaction,
  userId: string,
  keptSessionId: string,
  visit: Visit,
): Promise<number> {
  const revoked = await tx.execute(sql`
    UPDATE sessions SET revoked_at = ${visit.now} WHERE user_id = ${userId} AND id <> ${keptSessionId} AND revoked_at IS NULL`);
  await auditSession(tx, "session.revoke-others", userId, keptSessionId, visit.requestId);
  return revoked;
}

/**
 * Ends all sessions of a user; tells how many. The caller has written the user's row before, so that a sign-in of
 * the same moment has committed its session or will be refused.
 */
export async function endSessions(tx: Transaction, userId: string): Promise<number> {
  return await tx.execute(sql`UPDATE sessions SET revoked_at = now() WHERE user_id = ${userId} AND revoked_at IS NULL`);
}

/**
 * Changes a user's password and ends his other sessions. API tokens stay: they are revoked one by one.
 * @throws DomainError `forbidden` PASSWORD_WRONG; `rate-limited` and `unavailable` as `signIn`.
 */
export async function changePassword(
  system: Database,
  caller: { readonly userId: string; readonly email: string; readonly sessionId: string },
  passwords: { readonly current: string; readonly next: string },
  visit: Visit,
): Promise<number> {
  const attempt = { account: caller.email, address: visit.address };
  await countAttempt(system, attempt, visit.now);
  const [user] = await system.query<{ password_hash: string }>(
    sql`SELECT password_hash FROM users WHERE id = ${caller.userId}`,
  );
  if (!(await verifyPassword(passwords.current, user?.password_hash))) {
    throw new DomainError("forbidden", "PASSWORD_WRONG", "The current password is wrong.");
  }
  const hash = await hashPassword(passwords.next);
  return await system.transaction(async (tx) => {
    await forgiveAttempts(tx, attempt);
    await tx.execute(sql`UPDATE users SET password_hash = ${hash} WHERE id = ${caller.userId}`);
    await recordAudit(tx, {
      actor: { kind: "user", id: caller.userId },
      requestId: visit.requestId,
      tenantId: undefined,
      action: "user.change-password",
      targetType: "user",
      targetId: caller.userId,
    });
    return await revokeOtherSessions(tx, caller.userId, caller.sessionId, visit);
  });
}

async function auditSession(
  tx: Transaction,
  action: string,
  userId: string,
  sessionId: string,
  requestId: string,
): Promise<void> {
  const actor = { kind: "user", id: userId } as const;
  await recordAudit(tx, { actor, requestId, tenantId: undefined, action, targetType: "session", targetId: sessionId });
}
