import type { Queryable } from "./database.ts";
import { sql } from "./sql.ts";

/** What a commit is worth on this server: an operator must be able to see that it survives a crash. */
export async function durabilitySettings(db: Queryable): Promise<Record<string, string>> {
  const rows = await db.query<{ name: string; setting: string }>(sql`
    SELECT name, current_setting(name) AS setting FROM unnest(ARRAY['synchronous_commit', 'synchronous_standby_names']) AS name`);
  return Object.fromEntries(rows.map((row) => [row.name, row.setting]));
}
