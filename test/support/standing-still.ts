import type { Database } from "../../control-plane/src/platform/database.ts";

/**
 * The database as a process sees it that stands still before its n-th transaction or change until `meanwhile` has
 * happened: whatever it has read by then is old.
 */
export function standingStill(db: Database, before: number, meanwhile: () => Promise<unknown>): Database {
  let count = 0;
  const stand = async (): Promise<void> => {
    if (++count === before) await meanwhile();
  };
  return {
    ...db,
    async transaction(work, how) {
      await stand();
      return await db.transaction(work, how);
    },
    async execute(statement) {
      await stand();
      return await db.execute(statement);
    },
  };
}
