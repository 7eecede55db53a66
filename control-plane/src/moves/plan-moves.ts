import type { PlacementWish } from "../pods/placement-wish.ts";
import type { FleetSnapshot } from "../scheduling/fleet-snapshot.ts";
import type { Labels, PlacementRequest, TenantFootprint } from "../scheduling/placement-request.ts";
import { rankNodes, type Candidate } from "../scheduling/rank-nodes.ts";
import { keptVerdict, verdictOf, type PlacementVerdict } from "../scheduling/verdict.ts";
import { expectedCost, totalDurationMs, type PastMove } from "./expected-downtime.ts";
import type { MoveStrategy } from "./move.ts";
import { blockedByVolumes, strategyFor, type Reach, type SourceDisk } from "./reach.ts";
import { moveRequest } from "./move-request.ts";
import { noPlace, noWay } from "./no-place.ts";

/** Why a pod cannot move, by name and in words. */
export interface Blocker {
  readonly code: string;
  readonly message: string;
}

/** A pod of the host that is to be emptied. */
export interface PodToMove {
  readonly id: string;
  readonly name: string;
  readonly vmid: number;
  readonly tenantId: string;
  readonly labels: Labels;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
  readonly region: string;
  readonly placementRequest: PlacementWish;
  readonly disk: SourceDisk;
  readonly runs: boolean;
  /** Backups that only its present host can reach. */
  readonly backupsLeftBehind: readonly string[];
  /** What keeps it where it is, whatever room there is elsewhere. */
  readonly blocker: Blocker | undefined;
}

/** A place that a pod of one of the tenants has elsewhere. */
export interface Neighbour {
  readonly tenantId: string;
  readonly nodeId: string;
  readonly labels: Labels;
}

/** The rest of the fleet. */
export interface Surroundings {
  readonly snapshot: FleetSnapshot;
  readonly reach: readonly Reach[];
  readonly neighbours: readonly Neighbour[];
  readonly history: readonly PastMove[];
}

/** What would be done about one pod: it has a target or a blocker. */
export interface PlannedMove {
  readonly podId: string;
  readonly name: string;
  readonly vmid: number;
  readonly target: { readonly nodeId: string; readonly node: string; readonly storage: string } | null;
  readonly strategy: MoveStrategy | null;
  readonly expectedDowntimeMs: number | null;
  readonly expectedDurationMs: number | null;
  readonly backupsLeftBehind: readonly string[];
  /** Of pods whose host is gone: what they come back from; null: their own disk is still there. */
  readonly archive?: {
    /** Null: the archive of a move that the end of the host has interrupted. */
    readonly backupId: string | null;
    readonly volumeId: string;
    readonly madeAt: Date;
    readonly ageSeconds: number;
  } | null;
  readonly blocker: Blocker | null;
}

/** The whole plan. */
export interface MovePlan {
  readonly moves: readonly PlannedMove[];
  readonly totalMs: number | null;
}

/**
 * Finds a target for every pod, the largest first because they fit in the fewest places. Each takes its room before the next
 * looks. Pure, so that a dry run shows what a drain would claim at that moment.
 */
export function planMoves(pods: readonly PodToMove[], around: Surroundings, maxParallel: number): MovePlan {
  let { snapshot } = around;
  const neighbours = [...around.neighbours];
  const largestFirst = pods.toSorted(
    (a, b) => b.memoryMb - a.memoryMb || b.diskGb - a.diskGb || (a.id < b.id ? -1 : 1),
  );
  const moves = largestFirst.map((pod): PlannedMove => {
    if (pod.blocker !== undefined) return blocked(pod, pod.blocker);
    const found = findTarget(pod, { ...around, snapshot, neighbours });
    if ("blocker" in found) return blocked(pod, found.blocker);
    const { candidate, strategy, request } = found;
    snapshot = withRoomTaken(snapshot, candidate, request);
    neighbours.push({ tenantId: pod.tenantId, nodeId: candidate.node.id, labels: pod.labels });
    const cost = expectedCost(around.history, { strategy, diskGb: pod.diskGb, runs: pod.runs });
    return {
      ...identity(pod),
      target: { nodeId: candidate.node.id, node: candidate.node.name, storage: candidate.storage.name },
      strategy,
      expectedDowntimeMs: cost.downtimeMs,
      expectedDurationMs: cost.durationMs,
      blocker: null,
    };
  });
  const durations = moves.filter(({ target }) => target !== null).map(({ expectedDurationMs }) => expectedDurationMs);
  return { moves, totalMs: totalDurationMs(durations, maxParallel) };
}

function findTarget(
  pod: PodToMove,
  { snapshot, reach, neighbours }: Surroundings,
): { candidate: Candidate; strategy: MoveStrategy; request: PlacementRequest } | { blocker: Blocker } {
  let verdict: PlacementVerdict | undefined;
  for (const strategy of ["cluster-migrate", "backup-restore"] as const) {
    const hosts = reach.filter((one) => strategyFor(pod.disk, one) === strategy);
    if (hosts.length === 0) continue;
    const request = moveRequest(pod, pod.disk, strategy, hosts);
    const reachable = {
      ...snapshot,
      nodes: snapshot.nodes.filter(({ id }) => hosts.some(({ nodeId }) => nodeId === id)),
    };
    const ranking = rankNodes(request, reachable, footprintOf(pod, neighbours));
    const [candidate] = [...Iterator.from(ranking.candidates).take(1)];
    if (candidate !== undefined) return { candidate, strategy, request };
    verdict = verdictOf(ranking, undefined, keptVerdict);
  }
  if (verdict !== undefined) return { blocker: noPlace(verdict) };
  return { blocker: blockedByVolumes(pod.disk, reach) ?? noWay() };
}

function footprintOf(pod: PodToMove, neighbours: readonly Neighbour[]): TenantFootprint {
  const own = neighbours.filter(({ tenantId }) => tenantId === pod.tenantId);
  const podsByNode = new Map<string, number>();
  for (const { nodeId } of own) podsByNode.set(nodeId, (podsByNode.get(nodeId) ?? 0) + 1);
  const { antiAffinity } = pod.placementRequest;
  const conflicting = own.filter(({ labels }) => antiAffinity !== undefined && hasLabels(labels, antiAffinity));
  return { podsByNode, conflictingNodes: new Set(conflicting.map(({ nodeId }) => nodeId)) };
}

function hasLabels(labels: Labels, wanted: Labels): boolean {
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}

/** The fleet as it is once the pod has its place; a storage that several hosts see has less room on all of them. */
export function withRoomTaken(
  snapshot: FleetSnapshot,
  { node, storage }: Candidate,
  request: PlacementRequest,
): FleetSnapshot {
  return {
    ...snapshot,
    nodes: snapshot.nodes.map((other) => ({
      ...other,
      ...(other.id === node.id
        ? {
            cpuAllocated: other.cpuAllocated + request.cores,
            memoryAllocatedMb: other.memoryAllocatedMb + request.memoryMb,
          }
        : {}),
      storages: other.storages.map((one) =>
        one.id === storage.id ? { ...one, allocatedGb: one.allocatedGb + request.diskGb } : one,
      ),
    })),
  };
}

function identity(pod: PodToMove) {
  const { id: podId, name, vmid, backupsLeftBehind } = pod;
  return { podId, name, vmid, backupsLeftBehind };
}

function blocked(pod: PodToMove, blocker: Blocker): PlannedMove {
  return {
    ...identity(pod),
    target: null,
    strategy: null,
    expectedDowntimeMs: null,
    expectedDurationMs: null,
    blocker,
  };
}
