import { placementRequestOf } from "../pods/reserve-place.ts";
import type { PlacementRequest } from "../scheduling/placement-request.ts";
import type { MoveStrategy } from "./move.ts";
import type { Reach, SourceDisk } from "./reach.ts";

/** What a pod needs of a target. Its disk needs no room where both hosts see the storage. */
export function moveRequest(
  pod: Parameters<typeof placementRequestOf>[0],
  disk: SourceDisk,
  strategy: MoveStrategy,
  reach: readonly Pick<Reach, "nodeId">[],
  named?: string,
): PlacementRequest {
  const keepsDisk = strategy === "cluster-migrate" && disk.isShared;
  return {
    ...placementRequestOf(pod, undefined),
    // Nothing is made from a template: the disk is there already.
    template: null,
    only: reach.map(({ nodeId }) => nodeId),
    ...(named === undefined ? {} : { named }),
    ...(keepsDisk ? { storage: disk.storage, diskGb: 0 } : {}),
  };
}
