import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { selectPods, type Pod } from "../pods/pod.ts";
import type { FleetSnapshot } from "../scheduling/fleet-snapshot.ts";
import type { PastMove } from "./expected-downtime.ts";
import type { Blocker, Neighbour, PodToMove, Surroundings } from "./plan-moves.ts";
import { readReach, readSourceDisks } from "./reach.ts";
import { shallRun } from "./reserve-move.ts";

/** Moves that tell of the next ones: the newest of the last months. */
const historyMax = 200;

/** What a plan for pods of one host rests on. `snapshot`: of this moment. */
export async function readSurroundings(
  tx: Queryable,
  fromNodeId: string,
  pods: readonly PodToMove[],
  snapshot: FleetSnapshot,
): Promise<Surroundings> {
  const tenantIds = [...new Set(pods.map(({ tenantId }) => tenantId))];
  const [reach, neighbours, history] = await Promise.all([
    readReach(tx, fromNodeId),
    tx.query<Neighbour>(sql`
      SELECT k.tenant_id AS "tenantId", k.node_id AS "nodeId", p.labels FROM node_claims k JOIN cloud_pods p ON p.id = k.pod_id
      WHERE k.tenant_id = ANY(${tenantIds}::uuid[]) AND k.node_id <> ${fromNodeId}`),
    readHistory(tx),
  ]);
  return { snapshot, reach, neighbours, history };
}

/** The moves that were carried to their end and measured; how long one was tried in vain says nothing of the next. */
export async function readHistory(tx: Queryable): Promise<PastMove[]> {
  return await tx.query<PastMove>(sql`
    SELECT strategy, disk_gb AS "diskGb", downtime_ms AS "downtimeMs",
      -- Waiting for another pod's archive is none of a move's own time.
      (extract(epoch FROM ended_at - coalesce(stopped_at, begun_at, created_at)) * 1000)::float8 AS "durationMs"
    FROM cloud_pod_moves WHERE downtime_ms IS NOT NULL AND state = 'moved' ORDER BY ended_at DESC LIMIT ${historyMax}`);
}

/** The pods of a host as the planner wants them; `onlyId`: just that one. */
export async function readPodsToMove(tx: Queryable, nodeId: string, onlyId?: string): Promise<(PodToMove & Pod)[]> {
  const pods = await tx.query<Pod>(sql`
    ${selectPods} WHERE p.node_id = ${nodeId} AND p.status <> 'deleted' ${onlyId === undefined ? sql`` : sql`AND p.id = ${onlyId}`} ORDER BY p.id`);
  const ids = pods.map(({ id }) => id);
  const [disks, backups, busy] = await Promise.all([
    readSourceDisks(tx, ids),
    tx.query<{ podId: string; id: string }>(sql`
      SELECT b.pod_id AS "podId", b.id FROM cloud_pod_backups b JOIN storages s ON s.id = b.storage_id
      WHERE b.pod_id = ANY(${ids}::uuid[]) AND b.state = 'available' AND NOT s.shared ORDER BY b.id`),
    tx.query<{ podId: string; type: string }>(sql`
      SELECT pod_id AS "podId", type FROM cloud_pod_provisioning_tasks
      WHERE pod_id = ANY(${ids}::uuid[]) AND state NOT IN ('succeeded', 'failed', 'cancelled')`),
  ]);
  const runs = await Promise.all(pods.map((pod) => shallRun(tx, pod)));
  return pods.map((pod, index) => ({
    ...pod,
    disk: disks.get(pod.id) ?? { storage: pod.storage ?? "", isShared: false, isBoundToHost: false },
    runs: runs[index] ?? false,
    backupsLeftBehind: backups.filter(({ podId }) => podId === pod.id).map(({ id }) => id),
    blocker: blockerOf(pod, disks.has(pod.id), busy.find(({ podId }) => podId === pod.id)?.type),
  }));
}

/** What keeps a pod where it is for now; undefined: nothing. */
export function blockerOf(
  pod: Pick<Pod, "status">,
  holdsRoom: boolean,
  openTask: string | undefined,
): Blocker | undefined {
  if (openTask !== undefined)
    return { code: "POD_BUSY", message: `Other work on the pod is not finished: ${openTask}.` };
  if (pod.status !== "active" && pod.status !== "suspended") {
    return {
      code: `POD_${pod.status.toUpperCase()}`,
      message: `The pod is ${pod.status}; only active and suspended pods move.`,
    };
  }
  return holdsRoom ? undefined : { code: "NO_CLAIM", message: "The pod holds no room on its host." };
}
