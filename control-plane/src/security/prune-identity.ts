import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** Removes what has ended: idempotency keys after a day, throttles after a day, sessions a month after their end. */
export async function pruneIdentity(system: Database, now: Date): Promise<void> {
  await system.execute(sql`DELETE FROM idempotency_keys WHERE created_at < ${now}::timestamptz - interval '24 hours'`);
  await system.execute(sql`DELETE FROM login_throttles WHERE updated_at < ${now}::timestamptz - interval '24 hours'`);
  await system.execute(sql`
    DELETE FROM sessions WHERE least(expires_at, idle_expires_at, coalesce(revoked_at, 'infinity')) < ${now}::timestamptz - interval '30 days'`);
}
