import { DomainError } from "@cloudpods/shared/errors";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { hashPassword } from "../security/password.ts";
import { endSessions } from "../security/sessions.ts";
import type { Author } from "./author.ts";
import { newPasswordField } from "./create-user.ts";
import { findUserByEmail } from "./user.ts";

/**
 * Gives a user another password without asking for the old one, and ends his sessions; tells how many. API tokens
 * stay: they are revoked one by one.
 * @throws DomainError `invalid` PASSWORD_INVALID; `not-found` USER_NOT_FOUND.
 */
export async function setPassword(
  tx: Transaction,
  wish: { readonly email: string; readonly password: string },
  author: Author,
): Promise<number> {
  const form = newPasswordField.safeParse(wish.password);
  if (!form.success) {
    const detail = form.error.issues.map(({ message }) => message).join("; ");
    throw new DomainError("invalid", "PASSWORD_INVALID", detail, { errors: [{ pointer: "/password", detail }] });
  }
  const user = await findUserByEmail(tx, wish.email);
  if (user === undefined) {
    throw new DomainError("not-found", "USER_NOT_FOUND", "There is no user with this e-mail address.");
  }
  const hash = await hashPassword(wish.password);
  await tx.execute(sql`UPDATE users SET password_hash = ${hash} WHERE id = ${user.id}`);
  const endedSessions = await endSessions(tx, user.id);
  await recordAudit(tx, {
    actor: author.actor,
    requestId: author.requestId,
    tenantId: undefined,
    action: "user.set-password",
    targetType: "user",
    targetId: user.id,
    detail: { endedSessions },
  });
  return endedSessions;
}
