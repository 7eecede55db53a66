import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { anyFleet, anyRequest, fleetOf, nodeWith, nowhere } from "../../../test/support/placement-arbitraries.ts";
import type { FleetSnapshot } from "./fleet-snapshot.ts";
import { countFitting } from "./headroom.ts";
import type { PlacementRequest } from "./placement-request.ts";
import { rankNodes } from "./rank-nodes.ts";

describe("countFitting", () => {
  it("is what the scarcest resource of each node allows", () => {
    const fleet = fleetOf(
      nodeWith({ id: "a" }),
      nodeWith({ id: "b", cpuAllocated: 6 }),
      nodeWith({ id: "c", schedulable: false }),
    );
    expect(countFitting([{ cores: 1, memoryMb: 2_048, diskGb: 1 }], fleet)).toEqual([4 + 2]);
  });

  it("counts a shared storage once for each size", () => {
    const ceph = { id: "ceph", name: "ceph", shared: true, allocatableGb: 50, allocatedGb: 0 };
    const fleet = fleetOf(nodeWith({ id: "a", storages: [ceph] }), nodeWith({ id: "b", storages: [ceph] }));
    const sizes = [10, 25, 10].map((diskGb) => ({ cores: 1, memoryMb: 16, diskGb }));
    expect(countFitting(sizes, fleet)).toEqual([5, 2, 5]);
  });

  it("is how many pods can be placed one after another", () => {
    fc.assert(
      fc.property(anyRequest, anyFleet, (request, fleet) => {
        expect(countFitting([request], fleet, request)).toEqual([placeUntilFull(request, fleet)]);
      }),
    );
  });
});

function placeUntilFull(request: PlacementRequest, fleet: FleetSnapshot): number {
  for (let placed = 0, now = fleet; ; placed++) {
    const [best] = rankNodes(request, now, nowhere).candidates;
    if (best === undefined) return placed;
    now = {
      ...now,
      nodes: now.nodes.map((node) =>
        node.id !== best.node.id
          ? node
          : {
              ...node,
              cpuAllocated: node.cpuAllocated + request.cores,
              memoryAllocatedMb: node.memoryAllocatedMb + request.memoryMb,
              storages: node.storages.map((storage) =>
                storage.id === best.storage.id
                  ? { ...storage, allocatedGb: storage.allocatedGb + request.diskGb }
                  : storage,
              ),
            },
      ),
    };
  }
}
