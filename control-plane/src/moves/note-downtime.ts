import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Move } from "./move.ts";

/**
 * Writes down how long a pod was away for its move, which runs again: on its target, or where it was because the move came
 * to nothing. What a host has measured itself stays. `begunAt`: what to go by where nobody told of a stop; null: then it was
 * not stopped.
 * @returns the same in words, to be told; empty when it was not away or that is not known
 */
export async function noteDowntime(tx: Queryable, move: Move, now: Date, begunAt: Date | null): Promise<string> {
  const awayMs = move.downtimeMs ?? (await measured(tx, move, now, begunAt));
  if (awayMs === undefined) return "";
  await tx.execute(
    sql`UPDATE cloud_pod_moves SET downtime_ms = ${Math.min(awayMs, 2 ** 31 - 1)} WHERE id = ${move.id}`,
  );
  return `; it was away for ${(awayMs / 1_000).toFixed(1)} s`;
}

async function measured(tx: Queryable, move: Move, now: Date, begunAt: Date | null): Promise<number | undefined> {
  const since = move.stoppedAt ?? begunAt;
  const sinceMs = since === null ? 0 : Math.max(0, now.getTime() - since.getTime());
  // Since its begin: with all tries.
  const inVainMs = move.stoppedAt === null && begunAt !== null ? 0 : await awayInVain(tx, move);
  return since === null && inVainMs === 0 ? undefined : sinceMs + inVainMs;
}

/** How long a pod was stopped by its host for archives and migrations that failed, before it ran there again. */
export async function awayInVain(tx: Queryable, { podId, taskId, fromNodeId, fromPveName }: Move): Promise<number> {
  const [away] = await tx.query<{ ms: number }>(sql`
    SELECT coalesce(sum((c.move->>'downtimeMs')::bigint), 0)::float8 AS ms FROM node_commands c
    WHERE c.pod_id = ${podId} AND c.task_id = ${taskId} AND c.node_id = ${fromNodeId} AND c.op IN ('backup', 'migrate') AND c.state <> 'succeeded'
      AND c.move->>'pveName' = ${fromPveName}`);
  return away?.ms ?? 0;
}
