import { newId } from "@cloudpods/shared/ids";
import type { Blocker } from "../moves/plan-moves.ts";
import { blockerOf } from "../moves/read-surroundings.ts";
import { isBusy, startReserved } from "../moves/request-move.ts";
import { insertMove, shallRun } from "../moves/reserve-move.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { nextGeneration } from "../pods/next-generation.ts";
import { placementRequestOf } from "../pods/reserve-place.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { NoCapacityError } from "../scheduling/no-capacity.ts";
import { placePod, type Placement } from "../scheduling/place-pod.ts";
import type { PlacementRequest } from "../scheduling/placement-request.ts";
import { chooseRescue, isHopeless, noBackup, type Rescue, type RescueHost } from "./choose-rescue.ts";
import { changeDrainPod, type Drain } from "./drain.ts";
import { markLost } from "./mark-lost.ts";
import { afterFailure, blockerFrom } from "./place-drain-pod.ts";
import { isHostBack } from "./read-drain-facts.ts";

/**
 * Begins to bring a pod back elsewhere: a place is claimed and the task queued. The pod stays its old host's until the
 * switch, so a host that returns before that keeps it. Without anything to bring it back from it is kept as it is.
 * @returns the task; undefined when there is none
 */
export async function rescuePod(
  tx: Transaction,
  fleet: FleetView,
  drain: Drain,
  podId: string,
): Promise<{ taskId: string; nodeId: string } | undefined> {
  const pod = await lockPodById(tx, podId);
  if (!(await mayDecide(tx, drain, pod))) return undefined;
  const rescue = await findRescue(tx, drain, pod);
  if ("state" in rescue) {
    await changeDrainPod(tx, drain.id, podId, rescue);
    return undefined;
  }
  try {
    const hosts = await untried(tx, drain, podId, rescue.hosts);
    const generation = await nextGeneration(tx, pod);
    const place = await placeRescue(tx, fleet, pod, generation, { ...rescue, hosts });
    const host = rescue.hosts.find(({ nodeId }) => nodeId === place.nodeId);
    const { archive } = rescue;
    const move = await insertMove(
      tx,
      pod,
      { id: newId(), purpose: "evacuate", reason: `evacuation: ${drain.reason}`, requestedBy: drain.requestedBy },
      {
        strategy: host?.strategy ?? "restore-newest",
        generation,
        place,
        archive:
          archive === undefined
            ? undefined
            : { storage: archive.storage, volumeId: archive.volumeId, madeAt: archive.madeAt },
      },
    );
    const task = await startReserved(tx, pod, move, drain.requestId, await shallRun(tx, pod));
    await changeDrainPod(tx, drain.id, podId, {
      state: "moving",
      moveId: move.id,
      blocker: null,
      ...(archive === undefined ? {} : { archiveMadeAt: archive.madeAt }),
    });
    return { taskId: task.id, nodeId: move.toNodeId };
  } catch (error) {
    await changeDrainPod(tx, drain.id, podId, {
      state: "blocked",
      blocker: await afterFailure(tx, drain, podId, blockerFrom(error)),
    });
    return undefined;
  }
}

/**
 * Marks a pod as lost that nothing is left of, as was asked: never for what is merely out of reach at this moment, nor once a
 * member of the host's cluster has said that the host is there.
 */
export async function giveUpPod(tx: Transaction, drain: Drain, podId: string): Promise<void> {
  const pod = await lockPodById(tx, podId);
  if (!(await mayDecide(tx, drain, pod))) return;
  const rescue = await findRescue(tx, drain, pod);
  if (!("state" in rescue)) {
    await changeDrainPod(tx, drain.id, podId, { state: "pending", blocker: null });
    return;
  }
  const isLost = isHopeless(rescue.blocker);
  if (isLost) await markLost(tx, pod, drain);
  await changeDrainPod(tx, drain.id, podId, isLost ? { state: "lost", blocker: rescue.blocker } : rescue);
}

async function mayDecide(tx: Transaction, drain: Drain, pod: Pod): Promise<boolean> {
  return pod.nodeId === drain.nodeId && !(await isBusy(tx, pod.id)) && !(await isHostBack(tx, drain));
}

/** What the pod can be brought back from, or what has become of it in the drain when there is nothing. */
async function findRescue(
  tx: Transaction,
  drain: Drain,
  pod: Pod,
): Promise<Rescue | { readonly state: "blocked" | "failed"; readonly blocker: Blocker }> {
  const seen = await seenByItsCluster(tx, drain);
  if (seen !== undefined) return { state: "failed", blocker: seen };
  const blocker = blockerOf(pod, true, undefined);
  const rescue = blocker === undefined ? await chooseRescue(tx, pod) : undefined;
  if (rescue !== undefined)
    return rescue.blocker === undefined ? rescue : { state: "blocked", blocker: rescue.blocker };
  return { state: "blocked", blocker: blocker ?? (await damagedJustNow(tx, drain, pod.id)) ?? noBackup };
}

/**
 * What a member of the host's cluster has said in this evacuation: the host is there. Other hosts cannot ask, and a pod that
 * is restored there would run twice.
 */
async function seenByItsCluster(tx: Transaction, { nodeId, node, startedAt }: Drain): Promise<Blocker | undefined> {
  const [seen] = await tx.query<{ at: Date }>(sql`
    SELECT coalesce(ended_at, created_at) AS at FROM cloud_pod_moves WHERE from_node_id = ${nodeId} AND purpose = 'evacuate' AND created_at >= ${startedAt} AND error_code = ${memberOnline}
    ORDER BY at DESC LIMIT 1`);
  if (seen === undefined) return undefined;
  const message = `${node} was seen by its Proxmox cluster at ${seen.at.toISOString()}, so it was not cut off and its pods may run there. Fence it, then evacuate it again.`;
  return { code: memberOnline, message };
}

const memberOnline = "MEMBER_ONLINE";

/** @throws NoCapacityError when none of the hosts has room */
async function placeRescue(
  tx: Transaction,
  fleet: FleetView,
  pod: Pod,
  generation: bigint,
  rescue: Rescue,
): Promise<Placement> {
  const { id: podId, tenantId, vmid } = pod;
  const placeOn = (hosts: readonly RescueHost[]): Promise<Placement> => {
    const request = rescueRequest(pod, { ...rescue, hosts });
    return placePod(tx, fleet, { tenantId, podId, vmid, generation, purpose: "move", request });
  };
  const members = membersFirst(rescue.hosts);
  if (members === undefined) return await placeOn(rescue.hosts);
  try {
    return await placeOn(members);
  } catch (error) {
    if (!(error instanceof NoCapacityError)) throw error;
    return await placeOn(rescue.hosts);
  }
}

/**
 * Members of the host's cluster are asked before hosts outside: they see whether it is really gone, and say so before
 * anything is done. Undefined: all are alike.
 */
export function membersFirst(hosts: readonly RescueHost[]): readonly RescueHost[] | undefined {
  const members = hosts.filter(({ strategy }) => strategy === "take-over");
  return members.length === 0 || members.length === hosts.length ? undefined : members;
}

/** Hosts on which it has failed come into question again only when there are no others. */
async function untried(tx: Transaction, drain: Drain, podId: string, hosts: readonly RescueHost[]) {
  const [row] = await tx.query<{ failedTargets: string[] }>(
    sql`SELECT failed_targets AS "failedTargets" FROM node_drain_pods WHERE drain_id = ${drain.id} AND pod_id = ${podId}`,
  );
  const others = hosts.filter(({ nodeId }) => row?.failedTargets.includes(nodeId) !== true);
  return others.length > 0 ? others : hosts;
}

/** It may be a storage that is empty for a moment, seen by one host: that a pod is lost for it people decide, by evacuating again. */
async function damagedJustNow(tx: Transaction, drain: Drain, podId: string): Promise<Blocker | undefined> {
  const damaged = await tx.query(sql`
    SELECT FROM cloud_pod_backups WHERE pod_id = ${podId} AND state = 'available' AND damaged_at >= ${drain.startedAt}`);
  if (damaged.length === 0) return undefined;
  const message =
    "Its last backups were found to be gone or unreadable during this evacuation. Look at them before another one.";
  return { code: "BACKUP_DAMAGED", message };
}

/** What the pod needs of a host that brings it back. A disk that is still there needs no room. */
export function rescueRequest(pod: Pod, { hosts, archive }: Rescue): PlacementRequest {
  return {
    ...placementRequestOf(pod, undefined),
    template: null,
    only: hosts.map(({ nodeId }) => nodeId),
    capabilities: ["restore"],
    ...(archive === undefined && pod.storage !== null ? { storage: pod.storage, diskGb: 0 } : {}),
  };
}
