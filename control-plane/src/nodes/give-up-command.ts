import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";

/** So long a host may be silent before what it was told outside of any task is told another, or told again. */
const silenceMinutes = 10;
/** Beyond twice its own time, for what waits before it on its host. */
const patienceMinutes = 60;

/**
 * Whether an open command `c`, for which no task waits, waits in vain: its host `s` is silent, or nothing was heard of
 * it for longer than it may take (as of one that cannot be sent at all).
 */
export const waitsInVain: Sql = sql`(c.finished_at IS NULL AND (
  (NOT s.session_connected AND greatest(s.session_seen_at, c.created_at) < now() - ${silenceMinutes} * interval '1 minute')
  OR c.created_at < now() - ${patienceMinutes} * interval '1 minute' - 2 * coalesce((c.command->>'timeoutMs')::bigint, 0) * interval '1 ms'))`;

/** Ends a command that waits in vain. A later word of its host finds it ended; one that came first counts. */
export async function giveUpCommand(tx: Queryable, id: string): Promise<void> {
  await tx.execute(sql`
    UPDATE node_commands SET state = 'cancelled', finished_at = now(), retryable = true, error_code = 'NO_ANSWER',
      error_message = 'The host was silent for too long.'
    WHERE id = ${id} AND finished_at IS NULL`);
}
