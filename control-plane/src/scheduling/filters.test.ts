import { describe, expect, it } from "vitest";
import { nodeWith } from "../../../test/support/placement-arbitraries.ts";
import { filters, firstRefusal } from "./filters.ts";
import type { NodeSnapshot } from "./fleet-snapshot.ts";
import type { PlacementRequest } from "./placement-request.ts";

const small: PlacementRequest = { cores: 1, memoryMb: 1_024, diskGb: 10 };

/** For each filter a node, and where needed a request, that only this filter refuses. */
const refused: Record<
  keyof typeof filters,
  { node?: Partial<NodeSnapshot>; request?: Partial<PlacementRequest>; reason: string }
> = {
  target: { request: { only: ["b"] }, reason: "not reachable from there" },
  role: { node: { role: "mail" }, reason: "not for containers" },
  region: { request: { region: "us" }, reason: "in another region" },
  online: { node: { state: "offline" }, reason: "offline" },
  quorum: { node: { quorate: false }, reason: "without quorum" },
  schedulable: { node: { schedulable: false }, reason: "cordoned" },
  capability: { request: { capabilities: ["backup"] }, reason: "without the capability backup" },
  template: { request: { template: "ct:9001" }, reason: "without the template ct:9001" },
  labels: { node: { labels: { rack: "b" } }, request: { nodeLabels: { rack: "a" } }, reason: "without the labels" },
  storage: { request: { storage: "ceph" }, reason: "without the storage" },
  cpu: { node: { cpuAllocated: 8 }, reason: "short of CPU cores" },
  memory: { node: { memoryAllocatedMb: 7_680 }, reason: "short of memory" },
  disk: { request: { diskGb: 101 }, reason: "short of disk" },
};

describe("filters", () => {
  it("let a node pass that has everything", () => {
    const node = nodeWith({ id: "a", labels: { rack: "a" }, capabilities: ["backup"] });
    const request = {
      ...small,
      region: "eu",
      template: "ct:9000",
      storage: "local",
      nodeLabels: { rack: "a" },
      capabilities: ["backup"],
    };
    expect(firstRefusal(node, request)).toBeUndefined();
  });

  it.each(Object.entries(refused))("%s refuses, and no other", (name, { node, request, reason }) => {
    const refusal = firstRefusal(nodeWith({ id: "a", ...node }), { ...small, ...request });
    expect(refusal?.filter).toBe(name);
    expect(refusal?.refusal.reason).toBe(reason);
  });

  it("tell how much is missing, and no more than is asked of a node that is oversold already", () => {
    const request = { ...small, memoryMb: 2_048 };
    expect(filters.memory(nodeWith({ id: "a", memoryAllocatedMb: 6_656 }), request)?.shortBy).toEqual({
      amount: 512,
      unit: "MB",
    });
    expect(filters.memory(nodeWith({ id: "a", memoryAllocatedMb: 9_000 }), request)?.shortBy).toEqual({
      amount: 2_048,
      unit: "MB",
    });
  });

  it("tell a host that was not named from one that cannot be reached", () => {
    const request = { ...small, only: ["b"], named: "b" };
    expect(firstRefusal(nodeWith({ id: "a" }), request)?.refusal.reason).toBe("not the host that was named");
    expect(firstRefusal(nodeWith({ id: "b", schedulable: false }), request)?.refusal.reason).toBe("cordoned");
  });

  it("refuse a node without a template for pods that name none", () => {
    expect(firstRefusal(nodeWith({ id: "a", defaultTemplate: null }), small)?.refusal.reason).toBe(
      "without a template",
    );
  });
});
