import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "./pod.ts";

/** Above everything that any host has heard of for this pod, also in moves that came to nothing. */
export async function nextGeneration(tx: Queryable, pod: Pick<Pod, "id" | "generation">): Promise<bigint> {
  const [row] = await tx.query<{ next: bigint }>(sql`
    SELECT 1 + greatest(${pod.generation}::bigint,
      (SELECT max(to_generation) FROM cloud_pod_moves WHERE pod_id = ${pod.id}),
      (SELECT max(generation) FROM cloud_pod_placements WHERE pod_id = ${pod.id})) AS next`);
  if (row === undefined) throw new Error("an aggregate returned no row");
  return row.next;
}
