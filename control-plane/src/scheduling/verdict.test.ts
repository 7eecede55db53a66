import { describe, expect, it } from "vitest";
import { fleetOf, nodeWith, nowhere } from "../../../test/support/placement-arbitraries.ts";
import { NoCapacityError } from "./no-capacity.ts";
import { rankNodes } from "./rank-nodes.ts";
import { keptVerdict, summaryOf, verdictOf } from "./verdict.ts";

const request = { cores: 1, memoryMb: 2_048, diskGb: 10 };
const full = { memoryAllocatedMb: 6_656 };

describe("summaryOf", () => {
  it("counts the reasons", () => {
    const fleet = fleetOf(
      nodeWith({ id: "a", schedulable: false }),
      nodeWith({ id: "b", ...full }),
      nodeWith({ id: "c", ...full }),
    );
    expect(summaryOf(rankNodes(request, fleet, nowhere))).toBe("0 of 3 nodes: 1 cordoned, 2 short of memory by 512 MB");
  });

  it("gives the least of different shortages", () => {
    const fleet = fleetOf(
      nodeWith({ id: "b", ...full }),
      nodeWith({ id: "c", memoryAllocatedMb: 8_192 }),
      nodeWith({ id: "d" }),
    );
    expect(summaryOf(rankNodes(request, fleet, nowhere))).toBe("1 of 3 nodes: 2 short of memory by at least 512 MB");
  });

  it("has words for an empty fleet and for one that fits", () => {
    expect(summaryOf(rankNodes(request, fleetOf(), nowhere))).toBe("0 of 0 nodes");
    expect(summaryOf(rankNodes(request, fleetOf(nodeWith({ id: "a" })), nowhere))).toBe("1 of 1 node");
  });
});

describe("verdictOf", () => {
  it("names a few nodes of a large fleet and counts all", () => {
    const fits = Array.from({ length: 40 }, (_, index) => nodeWith({ id: `fit-${index}` }));
    const down = Array.from({ length: 60 }, (_, index) => nodeWith({ id: `down-${index}`, state: "offline" }));
    const ranking = rankNodes(request, fleetOf(...fits, ...down), nowhere);
    const verdict = verdictOf(ranking, undefined, keptVerdict);
    expect(verdict).toMatchObject({
      nodes: 100,
      fitting: 40,
      chosen: null,
      reasons: [{ filter: "online", nodes: 60 }],
    });
    expect(verdict.candidates).toHaveLength(keptVerdict.candidatesMax);
    expect(verdict.rejected).toHaveLength(keptVerdict.rejectedMax);
  });
});

describe("NoCapacityError", () => {
  const fleet = fleetOf(nodeWith({ id: "a", schedulable: false }), nodeWith({ id: "secret-name", ...full }));
  const error = new NoCapacityError(request, verdictOf(rankNodes(request, fleet, nowhere), undefined, keptVerdict));

  it("tells customers how many nodes fell out for which reason and no more", () => {
    expect(error.details).toEqual({
      nodes: [
        { filter: "schedulable", nodes: 1 },
        { filter: "memory", nodes: 1 },
      ],
    });
    expect(JSON.stringify([error.details, error.message])).not.toContain("secret-name");
  });

  it("names the host that was named, and what is wrong with it", () => {
    const named = { ...request, only: ["a"], named: "a" };
    const refused = new NoCapacityError(named, verdictOf(rankNodes(named, fleet, nowhere), undefined, keptVerdict));
    expect(refused.forOperator().message).toBe(
      "a cannot take this pod: cordoned. 0 of 2 nodes: 1 cordoned, 1 not the host that was named.",
    );
  });

  it("tells operators the reason of each node", () => {
    const told = error.forOperator();
    expect(told).toMatchObject({ kind: "no-capacity", code: "NO_CAPACITY" });
    expect(told.details?.["nodes"]).toContainEqual({
      nodeId: "secret-name",
      node: "secret-name",
      filter: "memory",
      reason: "short of memory by 512 MB",
    });
  });
});
