import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { uncordonNode } from "./change-node.ts";

/** Opens hosts whose cordon has reached its end. @returns their names */
export async function endCordons(db: Database): Promise<string[]> {
  return await db.transaction(async (tx) => {
    const due = await tx.query<{ id: string; name: string }>(sql`
      SELECT id, name FROM nodes WHERE cordoned_until <= now() AND removed_at IS NULL ORDER BY id FOR NO KEY UPDATE`);
    for (const { id } of due) {
      const by = { actor: systemActor("cordons"), requestId: undefined };
      await uncordonNode(tx, id, "the cordon reached its end", by);
    }
    return due.map(({ name }) => name);
  });
}
