import { expect, test } from "vitest";
import { nextPodStatus, podEvents, podStatuses, podStatusesAccepting, type PodStatus } from "./pod-lifecycle.ts";

function reachableFrom(start: PodStatus): Set<PodStatus> {
  const seen = new Set<PodStatus>([start]);
  for (const status of seen) {
    for (const event of podEvents) {
      const next = nextPodStatus(status, event);
      if (next !== undefined) seen.add(next);
    }
  }
  return seen;
}

test("every state can be reached from an order", () => {
  expect([...reachableFrom("provisioning")].sort()).toEqual([...podStatuses].sort());
});

test("every pod can reach its end, and the end is final", () => {
  for (const status of podStatuses) expect(reachableFrom(status)).toContain("deleted");
  expect(podEvents.filter((event) => nextPodStatus("deleted", event) !== undefined)).toEqual([]);
});

test("a suspended pod resumes to active and nothing else resumes", () => {
  expect(nextPodStatus("suspended", "resumed")).toBe("active");
  expect(podStatusesAccepting("resumed")).toEqual(["suspended"]);
});
