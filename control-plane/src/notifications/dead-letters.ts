import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** A message that was given up; without its text, which is the tenant's. */
export interface DeadLetter {
  readonly id: string;
  readonly tenantId: string;
  readonly channel: "email" | "webhook";
  readonly recipient: string;
  readonly occasion: string;
  readonly attempts: number;
  readonly createdAt: Date;
  /** Null for one that is tried again. */
  readonly deadAt: Date | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
}

const columns = sql`id, tenant_id AS "tenantId", channel, recipient, dedupe_key AS occasion, attempts, created_at AS "createdAt",
  dead_at AS "deadAt", last_error_code AS "errorCode", last_error_message AS "errorMessage"`;

/** Messages that were given up, newest first. Only under the owner's login. */
export async function listDeadLetters(db: Queryable, limit: number, beforeId?: string): Promise<DeadLetter[]> {
  return await db.query<DeadLetter>(sql`
    SELECT ${columns} FROM notifications
    WHERE dead_at IS NOT NULL AND (${beforeId ?? null}::uuid IS NULL OR id < ${beforeId ?? null}::uuid)
    ORDER BY id DESC LIMIT ${limit}`);
}

/**
 * Queues a message that was given up anew, with all its attempts.
 * @throws DomainError `DEAD_LETTER_NOT_FOUND`, also for a message that was sent or is still tried
 */
export async function reviveDeadLetter(tx: Queryable, id: string): Promise<DeadLetter> {
  const [letter] = await tx.query<DeadLetter>(sql`
    UPDATE notifications SET dead_at = NULL, attempts = 0, queued_at = now(), next_try_at = now()
    WHERE id = ${id} AND dead_at IS NOT NULL RETURNING ${columns}`);
  if (letter === undefined)
    throw new DomainError("not-found", "DEAD_LETTER_NOT_FOUND", "There is no message that was given up with this id.");
  return letter;
}
