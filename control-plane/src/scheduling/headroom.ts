import { firstRefusal } from "./filters.ts";
import { roomGb, type FleetSnapshot, type NodeSnapshot, type StorageSnapshot } from "./fleet-snapshot.ts";
import type { PlacementRequest } from "./placement-request.ts";

/** What one pod takes. */
type PodSize = Pick<PlacementRequest, "cores" | "memoryMb" | "diskGb">;

/** What a node has left for pods that it takes at all. */
interface Room {
  readonly cores: number;
  readonly memoryMb: number;
  readonly storages: readonly StorageSnapshot[];
}

/**
 * How many more pods of each size the fleet takes, were they all of that size. Each node gives what its scarcest
 * resource allows; a storage that several nodes share gives its room once.
 */
export function countFitting(
  sizes: readonly PodSize[],
  snapshot: FleetSnapshot,
  wishes: Omit<PlacementRequest, keyof PodSize> = {},
): number[] {
  // What has no size is refused for what a node is, not for how full it is: nodes are asked once for all sizes.
  const request = { ...wishes, cores: 0, memoryMb: 0, diskGb: 0 };
  const rooms = snapshot.nodes
    .filter((node) => firstRefusal(node, request) === undefined)
    .map((node) => roomOf(node, request));
  return sizes.map((size) => countIn(rooms, size));
}

function roomOf(node: NodeSnapshot, request: PlacementRequest): Room {
  return {
    cores: node.cpuAllocatable - node.cpuAllocated,
    memoryMb: node.memoryAllocatableMb - node.memoryAllocatedMb,
    storages: usableStorages(node, request),
  };
}

function countIn(rooms: readonly Room[], size: PodSize): number {
  const podsOfStorage = new Map<string, number>();
  let total = 0;
  for (const { cores, memoryMb, storages } of rooms) {
    let open = Math.min(floorShare(cores, size.cores), floorShare(memoryMb, size.memoryMb));
    for (const storage of storages) {
      const room = podsOfStorage.get(storage.id) ?? floorShare(roomGb(storage), size.diskGb);
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
