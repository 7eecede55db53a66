import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { joinSql, sql } from "../platform/sql.ts";

/** One line of a host's history. */
export interface NodeEvent {
  readonly nodeId: string;
  /** Upper-case, e.g. `STATE_CHANGED`. */
  readonly kind: string;
  readonly message: string;
  readonly detail?: Readonly<Record<string, unknown>>;
}

/** Adds to the histories of hosts, in the transaction of what happened. */
export async function appendNodeEvents(tx: Queryable, events: readonly NodeEvent[]): Promise<void> {
  if (events.length === 0) return;
  const rows = events.map(
    (event) =>
      sql`(${newId()}::uuid, ${event.nodeId}::uuid, ${event.kind}, ${event.message}, ${JSON.stringify(event.detail ?? {})}::jsonb)`,
  );
  await tx.execute(sql`INSERT INTO node_events (id, node_id, kind, message, detail) VALUES ${joinSql(rows, sql`, `)}`);
}

/** A line as it was stored. */
export interface StoredNodeEvent {
  readonly id: string;
  readonly at: Date;
  readonly kind: string;
  readonly message: string;
  readonly detail: Readonly<Record<string, unknown>>;
}

/** Newest first; `beforeId` is the last one of the page before. */
export async function listNodeEvents(
  db: Queryable,
  nodeId: string,
  page: { limit: number; beforeId?: string | undefined },
): Promise<StoredNodeEvent[]> {
  return await db.query<StoredNodeEvent>(sql`
    SELECT id, at, kind, message, detail FROM node_events
    WHERE node_id = ${nodeId} AND (${page.beforeId ?? null}::uuid IS NULL OR id < ${page.beforeId ?? null})
    ORDER BY id DESC LIMIT ${page.limit}`);
}
