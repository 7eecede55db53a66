import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { PlatformRole } from "../security/scopes.ts";

/** Someone who can sign in. */
export interface User {
  readonly id: string;
  readonly email: string;
  readonly name: string | null;
  readonly platformRole: PlatformRole;
  readonly isActive: boolean;
  /** Somebody vouched that the address is the user's. */
  readonly emailVerified: boolean;
  readonly createdAt: Date;
}

/** Columns of `users` that make a `User`. */
export const userColumns = sql`id, email, name, platform_role AS "platformRole", is_active AS "isActive",
  email_verified_at IS NOT NULL AS "emailVerified", created_at AS "createdAt"`;

/** The user with this e-mail address, without case; undefined when there is none. */
export async function findUserByEmail(system: Queryable, email: string): Promise<User | undefined> {
  const [user] = await system.query<User>(sql`SELECT ${userColumns} FROM users WHERE lower(email) = lower(${email})`);
  return user;
}

/** The refusal of an address, at `pointer` of a body, that no user has. */
export function userUnknown(pointer: string): DomainError {
  const detail = "There is no user with this e-mail address.";
  return new DomainError("invalid", "USER_UNKNOWN", detail, { errors: [{ pointer, detail }] });
}
