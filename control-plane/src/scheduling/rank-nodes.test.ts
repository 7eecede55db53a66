import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  anyFleet,
  anyFootprint,
  anyRequest,
  fleetOf,
  nodeWith,
  nowhere,
} from "../../../test/support/placement-arbitraries.ts";
import { firstRefusal } from "./filters.ts";
import { roomGb } from "./fleet-snapshot.ts";
import type { PlacementRequest } from "./placement-request.ts";
import { rankNodes, type Ranking } from "./rank-nodes.ts";

const small: PlacementRequest = { cores: 1, memoryMb: 1_024, diskGb: 10 };

const names = (ranking: Ranking) => [...ranking.candidates].map(({ node }) => node.id);

describe("rankNodes", () => {
  it("judges every node exactly once", () => {
    fc.assert(
      fc.property(anyRequest, anyFleet, anyFootprint, (request, fleet, tenant) => {
        const ranking = rankNodes(request, fleet, tenant);
        const judged = [...names(ranking), ...ranking.rejections.map(({ node }) => node.id)];
        expect(judged.toSorted()).toEqual(fleet.nodes.map(({ id }) => id).toSorted());
        expect(ranking.fitting).toBe(names(ranking).length);
        expect(ranking.reasons.reduce((sum, { nodes }) => sum + nodes, 0)).toBe(ranking.rejections.length);
      }),
    );
  });

  it("offers only nodes with room on which no pod to keep away from sits", () => {
    fc.assert(
      fc.property(anyRequest, anyFleet, anyFootprint, (request, fleet, tenant) => {
        for (const { node, storage } of rankNodes(request, fleet, tenant).candidates) {
          expect(firstRefusal(node, request)).toBeUndefined();
          expect(node.cpuAllocated + request.cores).toBeLessThanOrEqual(node.cpuAllocatable);
          expect(node.memoryAllocatedMb + request.memoryMb).toBeLessThanOrEqual(node.memoryAllocatableMb);
          expect(roomGb(storage)).toBeGreaterThanOrEqual(request.diskGb);
          expect(node.storages).toContain(storage);
          expect(tenant.conflictingNodes.has(node.id)).toBe(false);
        }
      }),
    );
  });

  it("sorts by points, ties by id, whatever the order of the nodes", () => {
    fc.assert(
      fc.property(anyRequest, anyFleet, anyFootprint, (request, fleet, tenant) => {
        const candidates = [...rankNodes(request, fleet, tenant).candidates];
        for (const [index, candidate] of candidates.entries()) {
          const next = candidates[index + 1];
          if (next === undefined) continue;
          expect(
            candidate.points > next.points || (candidate.points === next.points && candidate.node.id < next.node.id),
          ).toBe(true);
        }
        const reversed = rankNodes(request, { ...fleet, nodes: fleet.nodes.toReversed() }, tenant);
        expect(names(reversed)).toEqual(candidates.map(({ node }) => node.id));
      }),
    );
  });

  it("adds up its scores, and more pods of the tenant never make a node better", () => {
    fc.assert(
      fc.property(anyRequest, anyFleet, anyFootprint, (request, fleet, tenant) => {
        const alone = new Map(
          [...rankNodes(request, fleet, nowhere).candidates].map((candidate) => [candidate.node.id, candidate.points]),
        );
        for (const { node, points, scores } of rankNodes(request, fleet, tenant).candidates) {
          expect(points).toBe(scores["best-fit"] + scores.pressure + scores["tenant-spread"]);
          expect(points).toBeLessThanOrEqual(alone.get(node.id) ?? Number.NaN);
        }
      }),
    );
  });

  it("fills the fuller node first", () => {
    const fleet = fleetOf(
      nodeWith({ id: "a" }),
      nodeWith({ id: "b", memoryAllocatedMb: 4_096 }),
      nodeWith({ id: "c", cpuAllocated: 2 }),
    );
    expect(names(rankNodes(small, fleet, nowhere))).toEqual(["b", "c", "a"]);
  });

  it("prefers a node that is not busy", () => {
    const fleet = fleetOf(
      nodeWith({ id: "a", cpuBusyBasisPoints: 9_500 }),
      nodeWith({ id: "b", cpuBusyBasisPoints: 4_000 }),
    );
    expect(names(rankNodes(small, fleet, nowhere))).toEqual(["b", "a"]);
  });

  it("spreads the pods of one tenant", () => {
    const fleet = fleetOf(nodeWith({ id: "a", cpuAllocated: 1 }), nodeWith({ id: "b" }), nodeWith({ id: "c" }));
    const tenant = { podsByNode: new Map([["a", 1]]), conflictingNodes: new Set<string>() };
    expect(names(rankNodes(small, fleet, tenant))).toEqual(["b", "c", "a"]);
  });

  it("takes the storage with the most room, or the default one only", () => {
    const storages = [
      { id: "s1", name: "fast", shared: false, allocatableGb: 100, allocatedGb: 95 },
      { id: "s2", name: "big", shared: true, allocatableGb: 100, allocatedGb: 20 },
    ];
    const [any] = rankNodes(small, fleetOf(nodeWith({ id: "a", storages })), nowhere).candidates;
    expect(any?.storage.name).toBe("big");
    const fixed = rankNodes(small, fleetOf(nodeWith({ id: "a", storages, defaultStorage: "fast" })), nowhere);
    expect(fixed.rejections.map(({ filter }) => filter)).toEqual(["disk"]);
  });
});
