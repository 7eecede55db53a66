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
      const [host] = await tx.query<{ name: string }>(
        sql`SELECT name FROM nodes WHERE id = ${id} AND cordoned_until <= now() AND removed_at IS NULL FOR NO KEY UPDATE`,
      );
      // In a statement of its own: one that begins locks the host, and the first sees nothing that it has waited for.
      const draining = await tx.query(sql`SELECT FROM node_drains WHERE node_id = ${id} AND finished_at IS NULL`);
      if (host === undefined || draining.length > 0) return undefined;
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
