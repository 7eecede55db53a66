import { DomainError } from "@cloudpods/shared/errors";
import { isUuid } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/**
 * The id of the host that a caller names by UUID or by name; a removed host is found by its UUID only.
 * @throws DomainError `not-found` NODE_NOT_FOUND.
 */
export async function findNodeId(db: Queryable, reference: string): Promise<string> {
  const [row] = await db.query<{ id: string }>(
    isUuid(reference)
      ? sql`SELECT id FROM nodes WHERE id = ${reference}`
      : sql`SELECT id FROM nodes WHERE name = ${reference} AND removed_at IS NULL`,
  );
  if (row === undefined) throw nodeNotFound();
  return row.id;
}

/** The refusal for a host that is not there. */
export function nodeNotFound(): DomainError {
  return new DomainError("not-found", "NODE_NOT_FOUND", "There is no such node.");
}
