import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** Volumes besides the root disk that somebody gave a pod's container by hand. */
export interface ExtraVolumes {
  /** Sorted: mount points ("mp0"), volumes that are not used ("unused0") and, where asked for, snapshots. */
  readonly keys: readonly string[];
  /** When the host saw them. */
  readonly seenAt: Date;
}

/** Which of a container's parts are volumes. */
export function volumesAmong(partsOfNoPod: readonly string[]): string[] {
  return partsOfNoPod.filter((key) => /^(?:mp|unused)\d+$/u.test(key));
}

/** Words for people: "mp0, unused0 (seen at 2026-11-21T10:00:00Z)". */
export function namesOf({ keys, seenAt }: ExtraVolumes): string {
  return `${keys.join(", ")} (seen at ${seenAt.toISOString().slice(0, 19)}Z)`;
}

/**
 * The pods whose containers have volumes that no pod has, by the newest inventories of the hosts of their places. What was
 * added since is seen by the host itself, which refuses. `also`: those with snapshots too ("snapshot:NAME").
 */
export async function readExtraVolumes(
  db: Queryable,
  podIds: readonly string[],
  also?: "snapshots",
): Promise<Map<string, ExtraVolumes>> {
  const wanted = also === undefined ? "^(mp|unused)[0-9]+$" : "^((mp|unused)[0-9]+$|snapshot:)";
  // Each inventory is taken apart once, however many pods are asked about.
  const rows = await db.query<{ podId: string; keys: string[]; seenAt: Date }>(sql`
    SELECT p.id AS "podId", array_agg(part ORDER BY part) AS keys, i.observed_at AS "seenAt"
    FROM node_inventories i, jsonb_path_query(i.containers, '$[*] ? (exists(@.partsOfNoPod[*]))') container,
      jsonb_array_elements_text(container->'partsOfNoPod') part, cloud_pods p
    WHERE i.node_id IN (SELECT node_id FROM cloud_pods WHERE id = ANY(${[...podIds]}::uuid[])) AND part ~ ${wanted}
      AND p.id = ANY(${[...podIds]}::uuid[]) AND p.node_id = i.node_id AND p.vmid = (container->>'vmid')::integer AND p.id::text = container->>'podId'
    GROUP BY p.id, i.observed_at`);
  return new Map(rows.map(({ podId, ...volumes }) => [podId, volumes]));
}
