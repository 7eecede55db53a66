import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import type { Pod } from "./pod.ts";

/** Above everything that any host has heard of for pod `p`, also in moves that came to nothing: below that hosts refuse. */
export const aboveAllGenerations: Sql = sql`(1 + greatest(p.generation,
  (SELECT max(m.to_generation) FROM cloud_pod_moves m WHERE m.pod_id = p.id),
  (SELECT max(l.generation) FROM cloud_pod_placements l WHERE l.pod_id = p.id)))`;

/** Under which a pod, whose row is locked, gets its next place. */
export async function nextGeneration(tx: Queryable, { id }: Pick<Pod, "id">): Promise<bigint> {
  const [row] = await tx.query<{ next: bigint }>(
    sql`SELECT ${aboveAllGenerations} AS next FROM cloud_pods p WHERE p.id = ${id}`,
  );
  if (row === undefined) throw new Error(`there is no pod ${id}`);
  return row.next;
}
