import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { isFreeToRun } from "../pods/holds.ts";
import { nextGeneration } from "../pods/next-generation.ts";
import type { Pod } from "../pods/pod.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { NoCapacityError } from "../scheduling/no-capacity.ts";
import { placePod, type Placement } from "../scheduling/place-pod.ts";
import { lockMove, type Move, type MovePurpose, type MoveStrategy } from "./move.ts";
import { moveRequest } from "./move-request.ts";
import { noOtherWay, noWay } from "./no-place.ts";
import type { Blocker } from "./plan-moves.ts";
import { archiveStorageFor, blockedByVolumes, readReach, readSourceDisks, strategyFor } from "./reach.ts";

/** What a move is for. */
export interface MoveOrder {
  readonly id?: string;
  readonly purpose: MovePurpose;
  /** The only host that will do; undefined: the best one. */
  readonly targetNodeId?: string | undefined;
  /** Hosts that will not do, because it did not work there. */
  readonly except?: readonly string[];
  readonly reason: string;
  readonly requestedBy: string;
  /** The task that carries it out at once; absent: the place is only kept. */
  readonly taskId?: string;
}

/**
 * Claims a place on another host for a pod, before anything else is done: inside the cluster where it can, since
 * that moves least, else where an archive can go. The pod's row is locked; this comes after every other lock of the
 * transaction.
 * @throws DomainError `NO_WAY` when no host can be reached, `MORE_THAN_A_POD`, `NO_CLAIM`; NoCapacityError when none of those has room
 */
export async function reserveMove(tx: Queryable, fleet: FleetView, pod: Pod, order: MoveOrder): Promise<Move> {
  if (pod.nodeId === null) throw refusedFor({ code: "NO_CLAIM", message: "The pod has no place that it could leave." });
  const [reached, disks] = await Promise.all([readReach(tx, pod.nodeId), readSourceDisks(tx, [pod.id])]);
  const disk = disks.get(pod.id);
  if (disk === undefined) throw refusedFor({ code: "NO_CLAIM", message: "The pod holds no room on its host." });
  const { targetNodeId, except = [] } = order;
  const wanted = reached.filter(
    ({ nodeId }) => (targetNodeId === undefined || nodeId === targetNodeId) && !except.includes(nodeId),
  );
  const generation = await nextGeneration(tx, pod);
  let full: NoCapacityError | undefined;
  for (const strategy of ["cluster-migrate", "backup-restore"] as const) {
    const reach = wanted.filter((one) => strategyFor(disk, one) === strategy);
    if (reach.length === 0) continue;
    try {
      const request = moveRequest(pod, disk, strategy, reach, targetNodeId);
      const place = await placePod(tx, fleet, {
        tenantId: pod.tenantId,
        podId: pod.id,
        vmid: pod.vmid,
        generation,
        purpose: "move",
        request,
      });
      const chosen = reach.find(({ nodeId }) => nodeId === place.nodeId);
      const archiveStorage = chosen === undefined ? null : archiveStorageFor(disk, chosen);
      return await insertMove(tx, pod, order, { strategy, generation, place, archiveStorage });
    } catch (error) {
      if (!(error instanceof NoCapacityError)) throw error;
      full = error;
    }
  }
  if (full !== undefined) throw full;
  const hasFailedThere = reached.some((one) => except.includes(one.nodeId) && strategyFor(disk, one) !== undefined);
  const why = wanted.length === 0 && hasFailedThere ? noOtherWay() : await noWayTo(tx, pod, targetNodeId);
  throw refusedFor(blockedByVolumes(disk, wanted) ?? why);
}

/** Whether the pod shall run, as far as anybody but its host decides. */
export async function shallRun(tx: Queryable, pod: Pod): Promise<boolean> {
  return pod.status === "active" && pod.desiredPower === "running" && (await isFreeToRun(tx, pod));
}

/** What is chosen for a move. */
export interface ChosenMove {
  readonly strategy: MoveStrategy;
  readonly generation: bigint;
  readonly place: Placement;
  /** A customer's backup that the pod is brought back from, which stays. */
  readonly archive?: { readonly storage: string; readonly volumeId: string; readonly madeAt: Date } | undefined;
  /** Where an archive of the move itself would go. */
  readonly archiveStorage?: string | null;
}

/** Writes a move down whose place is claimed. */
export async function insertMove(tx: Queryable, pod: Pod, order: MoveOrder, chosen: ChosenMove): Promise<Move> {
  const id = order.id ?? newId();
  const { strategy, generation, place, archive, archiveStorage } = chosen;
  await tx.execute(sql`
    INSERT INTO cloud_pod_moves (id, tenant_id, pod_id, purpose, strategy, state, from_node_id, to_node_id, from_generation, to_generation,
      storage, bridge, pool, verdict, archive_storage, archive_volume_id, archive_made_at, archive_is_ours, disk_gb, runs, reason, requested_by, task_id)
    VALUES (${id}, ${pod.tenantId}, ${pod.id}, ${order.purpose}, ${strategy}, ${order.taskId === undefined ? "reserved" : "moving"},
      ${pod.nodeId}, ${place.nodeId}, ${pod.generation}, ${generation}, ${place.storage}, ${place.bridge}, ${place.pool},
      ${JSON.stringify(place.verdict)}, ${archive?.storage ?? archiveStorage ?? null}, ${archive?.volumeId ?? null}, ${archive?.madeAt ?? null},
      ${archive === undefined}, ${pod.diskGb}, ${await shallRun(tx, pod)}, ${order.reason}, ${order.requestedBy}, ${order.taskId ?? null})`);
  return await lockMove(tx, id);
}

/** Why nothing leads from a pod's host to the one that was named, or to any. */
export async function noWayTo(tx: Queryable, pod: Pod, targetNodeId: string | undefined): Promise<Blocker> {
  const [host] = await tx.query<{ node: string }>(
    sql`SELECT name AS node FROM nodes WHERE id = ${targetNodeId ?? null}`,
  );
  return noWay(host === undefined ? undefined : { node: host.node, isItsOwn: pod.nodeId === targetNodeId });
}

function refusedFor({ code, message }: Blocker): DomainError {
  return new DomainError("wrong-state", code, message);
}
