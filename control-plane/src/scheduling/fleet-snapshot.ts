import type { Labels } from "./placement-request.ts";

/** A storage as one node sees it. */
export interface StorageSnapshot {
  readonly id: string;
  readonly name: string;
  /** Seen by several nodes: its space is counted once. */
  readonly shared: boolean;
  readonly allocatableGb: number;
  readonly allocatedGb: number;
}

/** What placement knows of a node. */
export interface NodeSnapshot {
  readonly id: string;
  readonly name: string;
  readonly role: string;
  readonly region: string;
  readonly labels: Labels;
  readonly schedulable: boolean;
  /** Why it is cordoned, as an operator said. */
  readonly cordonReason: string | null;
  readonly state: string;
  /** False: the node's cluster has lost its majority; null: not in a cluster or not known. */
  readonly quorate: boolean | null;
  readonly capabilities: readonly string[];
  readonly templates: readonly string[];
  /** What a pod that names no template is made from; null when the node has none. */
  readonly defaultTemplate: string | null;
  /** Name of the only storage for pods that name none; null: any. */
  readonly defaultStorage: string | null;
  readonly bridge: string;
  readonly pool: string | null;
  readonly cpuAllocatable: number;
  readonly cpuAllocated: number;
  readonly memoryAllocatableMb: number;
  readonly memoryAllocatedMb: number;
  /** Those that are there now and hold root disks. */
  readonly storages: readonly StorageSnapshot[];
  /** Measured, in hundredths of a percent; null before the first heartbeat. */
  readonly cpuBusyBasisPoints: number | null;
  /** Measured; null before the first heartbeat. */
  readonly memoryAvailableMb: number | null;
  readonly memoryTotalMb: number;
}

/** All nodes at one instant. */
export interface FleetSnapshot {
  readonly readAt: Date;
  readonly nodes: readonly NodeSnapshot[];
}

/**
 * The storage that a pod's root disk would go to: the one that is asked for, else the node's default, else
 * the one with the most room.
 */
export function storageFor(node: NodeSnapshot, asked: string | undefined): StorageSnapshot | undefined {
  const name = asked ?? node.defaultStorage;
  if (name !== null) return node.storages.find((storage) => storage.name === name);
  return node.storages.reduce<StorageSnapshot | undefined>(
    (best, storage) => (best === undefined || roomGb(storage) > roomGb(best) ? storage : best),
    undefined,
  );
}

/** What can still be promised of a storage; negative when it shrank below what is promised. */
export function roomGb(storage: StorageSnapshot): number {
  return storage.allocatableGb - storage.allocatedGb;
}
