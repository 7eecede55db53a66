import type { ContainerObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { isUuid } from "@cloudpods/shared/ids";
import { readLatestInventory } from "../nodes/latest-inventory.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { KnownFinding } from "./finding.ts";
import type { KnownPod } from "./known-pod.ts";
import type { Comparison } from "./reconcile.ts";

/** A comparison and the inventory that it rests on. */
export interface ReadComparison extends Comparison {
  /** Number of the inventory. */
  readonly number: bigint;
  /** When the host looked. */
  readonly observedAt: Date;
}

/** Everything that is compared about a host; undefined while it has not told what it has. */
export async function readComparison(db: Queryable, nodeId: string): Promise<ReadComparison | undefined> {
  const inventory = await readLatestInventory(db, nodeId);
  if (inventory === undefined) return undefined;
  const { number, observedAt } = inventory;
  // What no agent of ours writes is no mark.
  const containers = inventory.containers.map((seen) => (isUuid(seen.podId) ? seen : { ...seen, podId: "" }));
  const [pods, history] = await Promise.all([readPods(db, nodeId, containers, observedAt), readHistory(db, nodeId)]);
  return { nodeId, number, observedAt, containers, pods, history };
}

async function readHistory(db: Queryable, nodeId: string): Promise<KnownFinding[]> {
  return await db.query<KnownFinding>(sql`
    SELECT id, vmid, kind, subject, state, first_seen_at AS "firstSeenAt", sightings, action, acted_at AS "actedAt", attempts
    FROM node_findings WHERE node_id = ${nodeId} AND state <> 'resolved' ORDER BY id`);
}

/**
 * The pods that are placed on a host or that its containers name. A pod is settled when nothing works on it and nothing
 * did since the host looked: what was seen before is not what is there now.
 */
async function readPods(
  db: Queryable,
  nodeId: string,
  containers: readonly ContainerObservation[],
  observedAt: Date,
): Promise<KnownPod[]> {
  const marked = containers.flatMap(({ podId }) => (podId === "" ? [] : [podId]));
  const unmarked = containers.filter(({ podId, template }) => podId === "" && !template).map(({ vmid }) => vmid);
  return await db.query<KnownPod>(sql`
    SELECT p.id, p.vmid, p.status, p.node_id AS "nodeId", n.name AS node, p.generation,
      greatest(p.generation, (SELECT max(m.to_generation) FROM cloud_pod_moves m WHERE m.pod_id = p.id),
        (SELECT max(l.generation) FROM cloud_pod_placements l WHERE l.pod_id = p.id)) AS "highestGeneration",
      CASE WHEN p.status = 'active' AND p.desired_power = 'running' AND NOT EXISTS (
        SELECT FROM cloud_pod_holds h WHERE h.pod_id = p.id AND h.until IS NULL AND h.effect <> 'throttle') THEN 'running' ELSE 'stopped' END AS power,
      p.cores, p.memory_mb AS "memoryMb", p.swap_mb AS "swapMb", p.disk_gb AS "diskGb", p.hostname, p.mac, p.storage,
      p.rate_limit_kib_per_second AS "rateLimitKibPerSecond",
      NOT EXISTS (SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = p.id AND (t.finished_at IS NULL OR t.finished_at >= ${observedAt}))
        AND NOT EXISTS (SELECT FROM cloud_pod_moves m WHERE m.pod_id = p.id AND (m.state IN ('reserved', 'moving') OR m.ended_at >= ${observedAt}))
        AND NOT EXISTS (SELECT FROM node_commands c WHERE c.pod_id = p.id AND (c.finished_at IS NULL OR c.finished_at >= ${observedAt})) AS "isSettled",
      EXISTS (SELECT FROM node_claims k WHERE k.pod_id = p.id AND k.node_id = ${nodeId}) AS "hasRoomHere",
      -- What the host of its place said last, as long as that is not long ago.
      p.container_missing_since IS NULL AND p.observed_power <> 'unknown' AND EXISTS (
        SELECT FROM node_inventories i WHERE i.node_id = p.node_id AND p.observed_at >= i.observed_at
          AND i.received_at > now() - interval '10 minutes') AS "isSeenAtHome",
      p.activated_at IS NOT NULL AS "wasActivated", p.adopted_network IS NOT NULL AS "wasAdopted",
      (SELECT json_build_object('id', b.id, 'madeAt', b.started_at) FROM cloud_pod_backups b
       WHERE b.pod_id = p.id AND b.state = 'available' AND b.damaged_at IS NULL ORDER BY b.started_at DESC LIMIT 1) AS "newestBackup"
    FROM cloud_pods p LEFT JOIN nodes n ON n.id = p.node_id
    WHERE (p.node_id = ${nodeId} AND p.status <> 'deleted') OR p.id = ANY(${marked}::uuid[])
      OR p.id IN (SELECT DISTINCT ON (o.vmid) o.id FROM cloud_pods o
        WHERE o.vmid = ANY(${unmarked}::integer[]) AND (o.node_id IS NULL OR o.node_id = ${nodeId}) ORDER BY o.vmid, o.status = 'deleted', o.id DESC)
    ORDER BY p.id`);
}

/** Whether anything may be done: not while a fault of our own is presumed, nor before all hosts have told what they have after a restore. */
export async function readMayAct(db: Queryable): Promise<boolean> {
  const [row] = await db.query<{ mayAct: boolean }>(sql`
    SELECT NOT EXISTS (SELECT FROM node_conditions WHERE kind = 'MassVanishing') AND NOT holds_orders AS "mayAct" FROM control_plane_epoch`);
  return row?.mayAct ?? false;
}
