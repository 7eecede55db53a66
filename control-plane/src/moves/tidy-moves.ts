import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/**
 * Ends moves whose task has ended without them, as when their pod was destroyed: whoever may destroy a pod may not write
 * about its moves. Until then whoever waits for them waits, and nothing of what they left is cleared.
 * @returns how many
 */
export async function tidyMoves(db: Queryable): Promise<number> {
  return await db.execute(sql`
    UPDATE cloud_pod_moves m SET state = CASE WHEN m.switched_at IS NULL THEN 'undone' ELSE 'moved' END, ended_at = now(),
      error_code = coalesce(t.error_code, 'TASK_OVER'), error_message = t.error_message
    FROM cloud_pod_provisioning_tasks t
    WHERE m.state = 'moving' AND t.id = m.task_id AND t.state IN ('succeeded', 'failed', 'cancelled')`);
}
