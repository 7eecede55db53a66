import { expect, test } from "vitest";
import { playFleet } from "../support/demo-fleet.ts";

test("a host is drained while the agent of a pod's new host is killed: nothing is lost, and nothing runs twice", async () => {
  const report = await playFleet("--pods", "8", "--speed", "2", "--kill", "agent");
  expect(report).toMatchObject({ pods: 8, killedOfflineAfterMs: null });
  expect(report).not.toMatchObject({ podsMoved: 0 });
});
