import { DomainError } from "@cloudpods/shared/errors";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { endApiTokens } from "../security/api-tokens.ts";
import { recordAudit } from "../security/audit.ts";
import type { PlatformRole } from "../security/scopes.ts";
import { endSessions } from "../security/sessions.ts";
import type { Author } from "./author.ts";
import { userColumns, type User } from "./user.ts";

/** What is to be different about a user; what is undefined stays. */
export interface UserChange {
  readonly isActive?: boolean | undefined;
  readonly platformRole?: PlatformRole | undefined;
  /** Whether somebody vouches that the address is the user's. */
  readonly emailVerified?: boolean | undefined;
}

/**
 * Changes what a user may do. Switching him off ends his sessions and API tokens for good: switched on again, he
 * signs in anew.
 * @throws DomainError `not-found` USER_NOT_FOUND; `wrong-state` LAST_ADMINISTRATOR.
 */
export async function changeUser(tx: Transaction, userId: string, change: UserChange, author: Author): Promise<User> {
  // Two administrators who switch each other off at the same time must not both succeed.
  await tx.query(sql`SELECT pg_advisory_xact_lock(hashtextextended('administrators', 0))`);
  const [user] = await tx.query<User>(sql`SELECT ${userColumns} FROM users WHERE id = ${userId}`);
  if (user === undefined) throw new DomainError("not-found", "USER_NOT_FOUND", "There is no such user.");
  const { isActive = user.isActive, platformRole = user.platformRole, emailVerified = user.emailVerified } = change;
  if (isAdministrator(user) && !isAdministrator({ isActive, platformRole })) await requireAnother(tx, userId);
  const [changed] = await tx.query<User>(sql`
    UPDATE users SET is_active = ${isActive}, platform_role = ${platformRole},
      email_verified_at = CASE WHEN ${emailVerified} THEN coalesce(email_verified_at, now()) END
    WHERE id = ${userId} RETURNING ${userColumns}`);
  if (changed === undefined) throw new Error("a user that was found was not there to change");
  const ended = isActive
    ? {}
    : { endedSessions: await endSessions(tx, userId), endedApiTokens: await endApiTokens(tx, userId) };
  await recordAudit(tx, {
    actor: author.actor,
    requestId: author.requestId,
    tenantId: undefined,
    action: "user.change",
    targetType: "user",
    targetId: userId,
    detail: { ...change, ...ended },
  });
  return changed;
}

function isAdministrator(user: Pick<User, "isActive" | "platformRole">): boolean {
  return user.isActive && user.platformRole === "ADMINISTRATOR";
}

async function requireAnother(tx: Transaction, userId: string): Promise<void> {
  const others = await tx.query(
    sql`SELECT FROM users WHERE platform_role = 'ADMINISTRATOR' AND is_active AND id <> ${userId} LIMIT 1`,
  );
  if (others.length > 0) return;
  throw new DomainError("wrong-state", "LAST_ADMINISTRATOR", "The platform keeps at least one active administrator.");
}
