import { firstRefusal } from "./filters.ts";
import { roomGb, type FleetSnapshot, type NodeSnapshot } from "./fleet-snapshot.ts";
import type { PlacementRequest } from "./placement-request.ts";

/**
 * How many more pods of one size the fleet takes. Each node gives what its scarcest resource allows; a
 * storage that several nodes share gives its room once.
 */
export function countFitting(request: PlacementRequest, snapshot: FleetSnapshot): number {
  const podsOfStorage = new Map<string, number>();
  let total = 0;
  for (const node of snapshot.nodes) {
    if (firstRefusal(node, request) !== undefined) continue;
    let open = Math.min(
      floorShare(node.cpuAllocatable - node.cpuAllocated, request.cores),
      floorShare(node.memoryAllocatableMb - node.memoryAllocatedMb, request.memoryMb),
    );
    for (const storage of usableStorages(node, request)) {
      const room = podsOfStorage.get(storage.id) ?? floorShare(roomGb(storage), request.diskGb);
      const taken = Math.min(open, room);
      podsOfStorage.set(storage.id, room - taken);
      open -= taken;
      total += taken;
    }
  }
  return total;
}

/** Those that pods of the request may use; a node's own before shared ones, whose room others want too. */
function usableStorages(node: NodeSnapshot, request: PlacementRequest): NodeSnapshot["storages"] {
  const name = request.storage ?? node.defaultStorage;
  const usable = name === null ? node.storages : node.storages.filter((storage) => storage.name === name);
  return usable.toSorted((a, b) => Number(a.shared) - Number(b.shared));
}

function floorShare(free: number, each: number): number {
  return Math.max(0, Math.floor(free / each));
}
