import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/**
 * Queues a message that was given up anew, with all its attempts.
 * @returns the tenant that it is for
 * @throws DomainError `DEAD_LETTER_NOT_FOUND`, also for a message that was sent or is still tried
 */
export async function reviveNotification(tx: Queryable, id: string): Promise<string> {
  const [revived] = await tx.query<{ tenantId: string }>(sql`
    UPDATE notifications SET dead_at = NULL, attempts = 0, queued_at = now(), next_try_at = now()
    WHERE id = ${id} AND dead_at IS NOT NULL RETURNING tenant_id AS "tenantId"`);
  if (revived === undefined)
    throw new DomainError("not-found", "DEAD_LETTER_NOT_FOUND", "There is no message that was given up with this id.");
  return revived.tenantId;
}
