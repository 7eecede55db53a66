import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";

/**
 * The address of the person behind a column like `user:<id>` or `token:<id>`, for operators; null for parts of the control
 * plane. Only under the owner's login: tenants' requests do not read users.
 */
export function emailOf(reference: Sql): Sql {
  // Whatever else a reference holds must not be read as an id.
  const id = sql`CASE WHEN ${reference} ~ '^(user|token):[0-9a-f-]{36}$' THEN split_part(${reference}, ':', 2)::uuid END`;
  return sql`(SELECT u.email FROM users u WHERE u.id = CASE WHEN ${reference} LIKE 'user:%' THEN ${id}
    ELSE (SELECT k.user_id FROM api_tokens k WHERE k.id = ${id}) END)`;
}

/** As `emailOf`, for rows that were read under the tenants' login. */
export async function readEmails(db: Queryable, references: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const people = await db.query<{ reference: string; email: string | null }>(sql`
    SELECT reference, ${emailOf(sql`reference`)} AS email FROM unnest(${[...new Set(references)]}::text[]) AS reference`);
  return new Map(people.flatMap(({ reference, email }) => (email === null ? [] : [[reference, email] as const])));
}
