import type { NodeSnapshot, StorageSnapshot } from "./fleet-snapshot.ts";
import type { PlacementRequest } from "./placement-request.ts";

type Score = (node: NodeSnapshot, storage: StorageSnapshot, request: PlacementRequest) => number;

const pointsOfFullNode = 1_000;
const pointsOfPressure = 600;
const pointsOfNeighbour = 200;
const neighboursMax = 5;

/**
 * What makes one node better than another, by name, in whole points that add up. A full node is worth
 * 1,000, so the others say how much emptier a node may be and still be preferred.
 */
export const scores = {
  /**
   * Best fit on the dominant resource: the share of the scarcest one that would be given away. Filling
   * nodes one by one keeps large holes for large pods.
   */
  "best-fit": (node, storage, request) =>
    Math.round(
      pointsOfFullNode *
        Math.max(
          share(node.cpuAllocated + request.cores, node.cpuAllocatable),
          share(node.memoryAllocatedMb + request.memoryMb, node.memoryAllocatableMb),
          share(storage.allocatedGb + request.diskGb, storage.allocatableGb),
        ),
    ),
  /** Measured load above one half counts against a node: promises say nothing of what guests really do. */
  pressure: (node) => {
    const cpu = (node.cpuBusyBasisPoints ?? 0) / 10_000;
    const memory = node.memoryAvailableMb === null ? 0 : 1 - share(node.memoryAvailableMb, node.memoryTotalMb);
    return 0 - Math.round(pointsOfPressure * Math.max(0, Math.max(cpu, memory) - 0.5));
  },
} as const satisfies Record<string, Score>;

/** Pods of one tenant go to different nodes, so that one dead node is not his whole outage. */
export const tenantSpread = {
  name: "tenant-spread",
  points: (podsOfTenant: number) => 0 - pointsOfNeighbour * Math.min(podsOfTenant, neighboursMax),
} as const;

/** Name of a score. */
export type ScoreName = keyof typeof scores | typeof tenantSpread.name;

/** Points by score. */
export type Scores = Readonly<Record<ScoreName, number>>;

/** The points of a node on which the tenant has no pod. */
export function scoresOf(node: NodeSnapshot, storage: StorageSnapshot, request: PlacementRequest): Scores {
  return {
    "best-fit": scores["best-fit"](node, storage, request),
    pressure: scores.pressure(node),
    "tenant-spread": tenantSpread.points(0),
  };
}

/** The sum. */
export function pointsOf(of: Scores): number {
  return Object.values(of).reduce((sum, points) => sum + points, 0);
}

function share(part: number, whole: number): number {
  return whole <= 0 ? 1 : part / whole;
}
