import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** Somebody else has begun to archive. */
export class ArchiveTurnLost extends Error {
  override readonly name = "ArchiveTurnLost";
}

/**
 * Begins to archive, and ends the turn of whoever did so before: he may live on after the connection that kept others
 * away from his pass has died, and would then write empty files over archives of samples that are dropped meanwhile.
 * Waits for what he is committing. @returns the number of the turn
 */
export async function beginArchiving(db: Queryable): Promise<bigint> {
  const [row] = await db.query<{ turn: bigint }>(sql`UPDATE usage_archiving SET turn = turn + 1 RETURNING turn`);
  if (row === undefined) throw new Error("usage_archiving has its one row");
  return row.turn;
}

/**
 * Makes sure that the turn is still this one, inside a transaction until its end.
 * @throws ArchiveTurnLost
 */
export async function holdTurn(db: Queryable, turn: bigint): Promise<void> {
  const mine = await db.query(sql`SELECT FROM usage_archiving WHERE turn = ${turn} FOR SHARE`);
  if (mine.length === 0) throw new ArchiveTurnLost("Another process has begun to archive usage.");
}
