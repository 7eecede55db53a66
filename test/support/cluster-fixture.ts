import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DeedOptions, PodContainer } from "../../node-agent/src/containers/containers.ts";
import { POD_ID, VMID, bounds, createFixture } from "./container-fixture.ts";
import type { Fixture } from "./container-fixture.ts";

/** Two members of one cluster, each with its agent's containers. */
export interface ClusterFixture {
  readonly one: Fixture;
  readonly two: Fixture;
  readonly dispose: () => Promise<void>;
}

/** Makes the members pve1 and pve2 with local storages and one that both see. */
export async function createCluster(): Promise<ClusterFixture> {
  const root = await mkdtemp(join(tmpdir(), "cloudpods-cluster-"));
  const member = (nodeName: string): Promise<Fixture> =>
    createFixture({
      nodeName,
      clusterRoot: join(root, "cluster"),
      storages: [
        { id: "local", type: "dir", totalGb: 50 },
        { id: "local-lvm", type: "lvmthin", totalGb: 100 },
        { id: "shared", type: "dir", totalGb: 100, shared: true },
      ],
    });
  const one = await member("pve1");
  const two = await member("pve2");
  return {
    one,
    two,
    dispose: async () => {
      await Promise.all([one.dispose(), two.dispose()]);
      await rm(root, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** The pod of these tests under the first generation. */
export const FIRST: PodContainer = { podId: POD_ID, vmid: VMID, fleetEpoch: 1n, generation: 1n };

/** Bounds of one deed; `stops` counts what it was about to stop. */
export function deedOptions(change: Partial<DeedOptions> = {}): DeedOptions & { readonly stops: () => number } {
  let stops = 0;
  return { ...bounds(change), beforeStop: async () => void (stops += 1), ...change, stops: () => stops };
}

/** Whether a member runs a container, whatever its configuration says. */
export async function runsOn(fixture: Fixture, vmid: number): Promise<boolean> {
  return (await fixture.host.containers()).some((view) => view.vmid === vmid && view.running);
}
