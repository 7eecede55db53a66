import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import { violatedConstraint, type Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { hashPassword, passwordLength } from "../security/password.ts";
import type { PlatformRole } from "../security/scopes.ts";
import { commandLine, type Author } from "./author.ts";
import { userColumns, type User } from "./user.ts";

/** Form of an e-mail address that can be signed in with. */
export const emailField = z.email().max(254).openapi({ example: "ada@example.com" });

/** Form of a password that may be set. */
export const newPasswordField = z
  .string()
  .min(passwordLength.min)
  .max(passwordLength.max)
  .openapi({ format: "password" });

/** What a new user is to be. */
export interface UserWish {
  readonly email: string;
  readonly password: string;
  readonly name?: string | undefined;
  readonly platformRole?: PlatformRole;
  /** Somebody vouches that the address is the user's; some plans need that. */
  readonly emailVerified?: boolean | undefined;
}

const wishForm = z.object({ email: emailField, password: newPasswordField });

/**
 * Makes a user. Also the way to the first administrator, from the command line.
 * @throws DomainError `invalid` USER_INVALID; `already-exists` EMAIL_TAKEN (addresses are compared without case).
 */
export async function createUser(tx: Transaction, wish: UserWish, author: Author = commandLine): Promise<User> {
  const form = wishForm.safeParse(wish);
  if (!form.success) {
    throw new DomainError(
      "invalid",
      "USER_INVALID",
      `A user needs an e-mail address and a password of ${passwordLength.min} to ${passwordLength.max} characters.`,
      {
        errors: form.error.issues.map((issue) => ({ pointer: `/${issue.path.join("/")}`, detail: issue.message })),
      },
    );
  }
  const role = wish.platformRole ?? "USER";
  const passwordHash = await hashPassword(wish.password);
  const [user] = await tx
    .query<User>(sql`
      INSERT INTO users (id, email, name, password_hash, platform_role, email_verified_at)
      VALUES (${newId()}, ${wish.email}, ${wish.name ?? null}, ${passwordHash}, ${role}, CASE WHEN ${wish.emailVerified === true} THEN now() END) RETURNING ${userColumns}`)
    .catch((error: unknown) => {
      if (violatedConstraint(error) !== "users_email_without_case") throw error;
      throw new DomainError("already-exists", "EMAIL_TAKEN", "There is a user with this e-mail address.", {
        cause: error,
      });
    });
  if (user === undefined) throw new Error("INSERT … RETURNING gave no row");
  await recordAudit(tx, {
    actor: author.actor,
    requestId: author.requestId,
    tenantId: undefined,
    action: "user.create",
    targetType: "user",
    targetId: user.id,
    detail: { email: user.email, platformRole: role, emailVerified: wish.emailVerified === true },
  });
  return user;
}
