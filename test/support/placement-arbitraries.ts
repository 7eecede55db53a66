import fc from "fast-check";
import type { FleetSnapshot, NodeSnapshot } from "../../control-plane/src/scheduling/fleet-snapshot.ts";
import type { PlacementRequest, TenantFootprint } from "../../control-plane/src/scheduling/placement-request.ts";

/** A node with room for 8 cores, 8 GB and 100 GB, that takes everything; change what a test is about. */
export function nodeWith(changes: Partial<NodeSnapshot> & Pick<NodeSnapshot, "id">): NodeSnapshot {
  return {
    name: changes.id,
    role: "hypervisor",
    region: "eu",
    labels: {},
    schedulable: true,
    cordonReason: null,
    state: "online",
    quorate: null,
    capabilities: [],
    templates: ["ct:9000"],
    defaultTemplate: "ct:9000",
    defaultStorage: null,
    bridge: "vmbr0",
    pool: null,
    cpuAllocatable: 8,
    cpuAllocated: 0,
    memoryAllocatableMb: 8_192,
    memoryAllocatedMb: 0,
    storages: [{ id: `${changes.id}-local`, name: "local", shared: false, allocatableGb: 100, allocatedGb: 0 }],
    cpuBusyBasisPoints: null,
    memoryAvailableMb: null,
    memoryTotalMb: 8_192,
    ...changes,
  };
}

/** A snapshot of the nodes. */
export function fleetOf(...nodes: readonly NodeSnapshot[]): FleetSnapshot {
  return { readAt: new Date("2026-01-01T00:00:00Z"), nodes };
}

const oneOf = (...values: string[]) => fc.constantFrom(...values);

const anyNode = fc.record({
  schedulable: fc.boolean(),
  state: oneOf("online", "online", "online", "offline", "degraded"),
  quorate: fc.constantFrom(null, true, false),
  region: oneOf("eu", "us"),
  labels: fc.dictionary(oneOf("rack", "disk"), oneOf("a", "b")),
  capabilities: fc.subarray(["nesting", "backup"]),
  cpuAllocatable: fc.integer({ min: 0, max: 16 }),
  cpuAllocated: fc.integer({ min: 0, max: 16 }),
  memoryAllocatableMb: fc.integer({ min: 0, max: 16_384 }),
  memoryAllocatedMb: fc.integer({ min: 0, max: 16_384 }),
  cpuBusyBasisPoints: fc.option(fc.integer({ min: 0, max: 10_000 })),
  memoryAvailableMb: fc.option(fc.integer({ min: 0, max: 8_192 })),
  storages: fc.array(
    fc.record({ allocatableGb: fc.integer({ min: 0, max: 200 }), allocatedGb: fc.integer({ min: 0, max: 200 }) }),
    { maxLength: 2 },
  ),
});

/** Fleets of up to 12 nodes in every condition. */
export const anyFleet: fc.Arbitrary<FleetSnapshot> = fc.array(anyNode, { maxLength: 12 }).map((nodes) =>
  fleetOf(
    ...nodes.map(({ storages, ...node }, index) =>
      nodeWith({
        id: `n${String(index).padStart(2, "0")}`,
        ...node,
        storages: storages.map((storage, place) => ({
          id: `s${index}-${place}`,
          name: `s${place}`,
          shared: false,
          ...storage,
        })),
      }),
    ),
  ),
);

/** Requests of every shape. */
export const anyRequest: fc.Arbitrary<PlacementRequest> = fc.record({
  cores: fc.integer({ min: 1, max: 8 }),
  memoryMb: fc.integer({ min: 16, max: 8_192 }),
  diskGb: fc.integer({ min: 1, max: 100 }),
  region: fc.option(oneOf("eu", "us"), { nil: undefined }),
  nodeLabels: fc.option(fc.constant({ rack: "a" }), { nil: undefined }),
  capabilities: fc.option(fc.subarray(["nesting", "backup"]), { nil: undefined }),
  storage: fc.option(oneOf("s0", "s1"), { nil: undefined }),
});

/** Where a tenant might have pods in such a fleet. */
export const anyFootprint: fc.Arbitrary<TenantFootprint> = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 11 }), fc.integer({ min: 1, max: 7 }), fc.boolean()), { maxLength: 6 })
  .map((entries) => ({
    podsByNode: new Map(entries.map(([node, pods]) => [`n${String(node).padStart(2, "0")}`, pods])),
    conflictingNodes: new Set(
      entries.filter(([, , conflicts]) => conflicts).map(([node]) => `n${String(node).padStart(2, "0")}`),
    ),
  }));

/** A tenant without pods. */
export const nowhere: TenantFootprint = { podsByNode: new Map(), conflictingNodes: new Set() };
