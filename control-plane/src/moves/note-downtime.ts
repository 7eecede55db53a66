import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Move } from "./move.ts";

/**
 * Writes down how long a pod was away for its move, which runs again: on its target, or where it was because the move came
 * to nothing. What a host has measured itself stays. `since`: null when nothing is known of a stop.
 * @returns the same in words, to be told; empty when it was not away or that is not known
 */
export async function noteDowntime(
  tx: Queryable,
  { id, downtimeMs }: Pick<Move, "id" | "downtimeMs">,
  since: Date | null,
  now: Date,
): Promise<string> {
  const awayMs = downtimeMs ?? (since === null ? undefined : Math.max(0, now.getTime() - since.getTime()));
  if (awayMs === undefined) return "";
  await tx.execute(sql`UPDATE cloud_pod_moves SET downtime_ms = ${Math.min(awayMs, 2 ** 31 - 1)} WHERE id = ${id}`);
  return `; it was away for ${(awayMs / 1_000).toFixed(1)} s`;
}
