import type { ContainerObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { isUuid } from "@cloudpods/shared/ids";
import { readLatestInventory } from "../nodes/latest-inventory.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { isKeptStopped } from "../pods/holds.ts";
import type { KnownFinding, StuckArchive } from "./finding.ts";
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
  const [pods, history, archives] = await Promise.all([
    readPods(db, nodeId, containers, observedAt),
    readHistory(db, nodeId),
    readArchives(db, nodeId),
  ]);
  return { nodeId, number, observedAt, containers, pods, history, archives };
}

async function readHistory(db: Queryable, nodeId: string): Promise<KnownFinding[]> {
  return await db.query<KnownFinding>(sql`
    SELECT id, vmid, kind, subject, state, first_seen_at AS "firstSeenAt", sightings, action, acted_at AS "actedAt", attempts
    FROM node_findings WHERE node_id = ${nodeId} AND state <> 'resolved' ORDER BY id`);
}

/** Archives that a dozen tries did nothing about: of moves with the host that has the pod now, of backups with that which made them. */
async function readArchives(db: Queryable, nodeId: string): Promise<StuckArchive[]> {
  return await db.query<StuckArchive>(sql`
    SELECT m.pod_id AS "podId", p.vmid, m.archive_volume_id AS "volumeId", 'move' AS "madeFor", 'delete' AS errand, m.archive_tries AS tries,
      (SELECT c.error_code || coalesce(': ' || c.error_message, '') FROM node_commands c WHERE c.pod_id = m.pod_id AND c.op = 'delete_backup'
        AND c.command #>> '{deleteBackup,volumeId}' = m.archive_volume_id ORDER BY c.id DESC LIMIT 1) AS error
    FROM cloud_pod_moves m JOIN cloud_pods p ON p.id = m.pod_id JOIN nodes t ON t.id = m.to_node_id
    WHERE m.archive_given_up_at IS NOT NULL AND m.archive_removed_at IS NULL
      AND CASE WHEN t.removed_at IS NULL THEN m.to_node_id ELSE m.from_node_id END = ${nodeId}
    UNION ALL
    SELECT b.pod_id, b.vmid, b.volume_id, 'backup', CASE WHEN b.state = 'failed' OR b.delete_requested_at IS NOT NULL THEN 'delete' ELSE 'verify' END,
      b.errand_attempts, b.error_code || coalesce(': ' || b.error_message, '')
    FROM cloud_pod_backups b WHERE b.node_id = ${nodeId} AND b.errand_attempts >= 12 AND b.pruned_at IS NULL AND b.volume_id IS NOT NULL
    ORDER BY "volumeId"`);
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
      CASE WHEN p.status = 'active' AND p.desired_power = 'running' AND NOT ${isKeptStopped} THEN 'running' ELSE 'stopped' END AS power,
      p.cores, p.memory_mb AS "memoryMb", p.swap_mb AS "swapMb", p.disk_gb AS "diskGb", p.hostname, p.mac, p.storage,
      p.rate_limit_kib_per_second AS "rateLimitKibPerSecond",
      NOT EXISTS (SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = p.id AND (t.finished_at IS NULL OR t.finished_at >= ${observedAt}))
        AND NOT EXISTS (SELECT FROM cloud_pod_moves m WHERE m.pod_id = p.id AND (m.state IN ('reserved', 'moving') OR m.ended_at >= ${observedAt}))
        AND NOT EXISTS (SELECT FROM node_commands c WHERE c.pod_id = p.id AND (c.finished_at IS NULL OR c.finished_at >= ${observedAt})) AS "isSettled",
      -- What a move has left is looked after by itself; what is still there after a day of a host that answers is told.
      kept.generation IS NOT NULL AND NOT EXISTS (SELECT FROM cloud_pod_moves m JOIN node_status s ON s.node_id = ${nodeId}
        WHERE m.pod_id = p.id AND kept.generation IN (m.from_generation, m.to_generation) AND p.node_id <> ${nodeId} AND m.state IN ('moved', 'undone')
          AND m.ended_at < now() - interval '1 day' AND s.session_connected AND s.state_since < now() - interval '1 day') AS "hasRoomHere", kept.generation AS "keptHere", p.container_missing_since IS NOT NULL AS "isMissingAtHome",
      (SELECT coalesce(json_agg(json_build_object('node', o.name, 'generation', coalesce(u.observation->>'generation', '0'),
          'power', CASE u.observation->>'power' WHEN 'POWER_RUNNING' THEN 'running' ELSE 'stopped' END) ORDER BY o.name), '[]')
        FROM unmanaged_containers u JOIN nodes o ON o.id = u.node_id WHERE u.pod_id = p.id) AS "seenOn",
      -- What the host of its place said last, as long as that is not long ago.
      p.container_missing_since IS NULL AND p.observed_power <> 'unknown' AND EXISTS (
        SELECT FROM node_inventories i WHERE i.node_id = p.node_id AND p.observed_at >= i.observed_at
          AND i.received_at > now() - interval '10 minutes') AS "isSeenAtHome",
      p.activated_at IS NOT NULL AS "wasActivated", p.adopted_network IS NOT NULL AS "wasAdopted",
      p.deletion_requested_at IS NOT NULL AS "isRemovalAsked",
      (SELECT json_build_object('id', b.id, 'madeAt', b.started_at) FROM cloud_pod_backups b
       WHERE b.pod_id = p.id AND b.state = 'available' AND b.damaged_at IS NULL ORDER BY b.started_at DESC LIMIT 1) AS "newestBackup"
    FROM cloud_pods p LEFT JOIN nodes n ON n.id = p.node_id
      LEFT JOIN LATERAL (SELECT max(k.generation) AS generation FROM node_claims k WHERE k.pod_id = p.id AND k.node_id = ${nodeId}) kept ON true
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
