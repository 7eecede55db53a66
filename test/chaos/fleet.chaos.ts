import { expect, test } from "vitest";
import { playFleet } from "../support/demo-fleet.ts";

/** As the other stories: in full only where it was asked for, because a host's outage alone takes minutes. */
const isFull = Number(process.env["CLOUDPODS_CHAOS_ROUNDS"] ?? 1) > 1;

test.runIf(isFull)(
  "a host is drained while the host of its pods' new places dies: they find others, nothing is lost, and nothing runs twice",
  async () => {
    const report = await playFleet("--pods", "60", "--kill", "host");
    expect(report).toMatchObject({ pods: 60, killedOfflineAfterMs: expect.any(Number) });
    expect(report["killedOfflineAfterMs"]).toBeLessThan(35_000);
    expect(report["replanned"]).toBeGreaterThan(0);
  },
  1_500_000,
);
