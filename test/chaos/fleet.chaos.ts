import { expect, test } from "vitest";
import { playFleet } from "../support/demo-fleet.ts";

test("a host is drained while the host of its pods' new places dies: they find others, nothing is lost, and nothing runs twice", async () => {
  const report = await playFleet("--pods", "60", "--kill", "host");
  expect(report).toMatchObject({ pods: 60, killedOfflineAfterMs: expect.any(Number) });
  expect(report["replanned"]).toBeGreaterThan(0);
}, 1_500_000);
