import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { uncordonNode } from "./change-node.ts";

/**
 * Opens hosts whose cordon has reached its end, each by itself: one that cannot be opened keeps no other closed. A host
 * that is being emptied stays closed.
 *
 * @returns their names
 */
export async function endCordons(db: Database): Promise<string[]> {
  const due = await db.query<{ id: string }>(
    sql`SELECT id FROM nodes WHERE cordoned_until <= now() AND removed_at IS NULL ORDER BY id`,
  );
  const opened: string[] = [];
  for (const { id } of due) {
    const name = await db.transaction(async (tx) => {
      const [host] = await tx.query<{ name: string }>(sql`
        SELECT name FROM nodes n WHERE id = ${id} AND cordoned_until <= now() AND removed_at IS NULL
          AND NOT EXISTS (SELECT FROM node_drains d WHERE d.node_id = n.id AND d.finished_at IS NULL) FOR NO KEY UPDATE`);
      if (host === undefined) return undefined;
      await uncordonNode(tx, id, "the cordon reached its end", {
        actor: systemActor("cordons"),
        requestId: undefined,
      });
      return host.name;
    });
    if (name !== undefined) opened.push(name);
  }
  return opened;
}
