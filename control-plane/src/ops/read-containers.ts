import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { isKeptStopped } from "../pods/holds.ts";

/** Pods that are not deleted. */
export interface PodCounts {
  readonly total: number;
  /** All statuses but `active`, which is the rest: of 50,000 pods only few need be looked at. */
  readonly notActive: readonly { readonly status: string; readonly pods: number }[];
  readonly onSilentHosts: number;
  /** Active pods seen in another power state than is wanted; one that a hold stops is wanted stopped. */
  readonly powerDrift: number;
}

/** Containers on hosts that no pod there accounts for. */
export interface Orphans {
  readonly unmanaged: number;
  readonly misplaced: number;
  readonly containers: readonly {
    readonly nodeId: string;
    readonly node: string;
    readonly vmid: number;
    readonly podId: string | null;
    readonly firstSeenAt: Date;
    readonly lastSeenAt: Date;
    readonly sightings: number;
  }[];
}

const containersShown = 20;

/**
 * Counts pods that are not deleted. Inventories touch every pod each minute, so that no index says by itself which of its
 * entries are seen: pods are counted from the table, page by page, which `count(status)` makes the only way, not entry by entry.
 */
export async function countPods(db: Queryable): Promise<PodCounts> {
  const [[counts], notActive] = await Promise.all([
    db.query<Omit<PodCounts, "notActive">>(sql`
      SELECT (SELECT count(status)::integer FROM cloud_pods WHERE status <> 'deleted') AS total,
        (SELECT count(*)::integer FROM cloud_pods p JOIN node_status s ON s.node_id = p.node_id
         WHERE p.status <> 'deleted' AND s.state IN ('offline', 'lost')) AS "onSilentHosts",
        -- From the index of pods that drift (OFFSET), before anybody asks for their holds.
        (SELECT count(*)::integer FROM (SELECT id, desired_power FROM cloud_pods WHERE status = 'active' AND observed_power <> desired_power
           AND observed_power <> 'unknown' OFFSET 0) AS p WHERE NOT (p.desired_power = 'running' AND ${isKeptStopped}))
        -- From the holds, which are few, one pod after the other (OFFSET): a join would read all pods.
        + (SELECT count(*)::integer FROM (SELECT DISTINCT pod_id FROM cloud_pod_holds WHERE until IS NULL AND effect <> 'throttle') AS held
           CROSS JOIN LATERAL (SELECT FROM cloud_pods p WHERE p.id = held.pod_id AND p.status = 'active' AND p.observed_power = 'running'
             AND p.desired_power = 'running' OFFSET 0) AS running) AS "powerDrift"`),
    db.query<PodCounts["notActive"][number]>(sql`
      SELECT status, count(*)::integer AS pods FROM cloud_pods WHERE status NOT IN ('active', 'deleted') GROUP BY status ORDER BY status`),
  ]);
  if (counts === undefined) throw new Error("a row of counts was not returned");
  return { ...counts, notActive };
}

/** Containers that are not where they should be, and those that are nobody's. */
export async function readOrphans(db: Queryable): Promise<Orphans> {
  const [[counts], containers] = await Promise.all([
    db.query<{ unmanaged: number; misplaced: number }>(sql`
      SELECT count(*) FILTER (WHERE pod_id IS NULL)::integer AS unmanaged, count(pod_id)::integer AS misplaced FROM unmanaged_containers`),
    db.query<Orphans["containers"][number]>(sql`
      SELECT u.node_id AS "nodeId", n.name AS node, u.vmid, u.pod_id AS "podId", u.first_seen_at AS "firstSeenAt",
        u.last_seen_at AS "lastSeenAt", u.sightings
      FROM unmanaged_containers u JOIN nodes n ON n.id = u.node_id ORDER BY u.pod_id IS NULL, u.first_seen_at, u.vmid LIMIT ${containersShown}`),
  ]);
  return { unmanaged: counts?.unmanaged ?? 0, misplaced: counts?.misplaced ?? 0, containers };
}
