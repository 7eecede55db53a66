import { afterAll, beforeAll, expect, it } from "vitest";
import { FIRST, createCluster, deedOptions } from "../../../test/support/cluster-fixture.ts";
import type { ClusterFixture } from "../../../test/support/cluster-fixture.ts";
import { VMID, bounds, cloneSpec, runningWish } from "../../../test/support/container-fixture.ts";
import { readRunningVmids } from "../pct/read-kernel.ts";

let cluster: ClusterFixture;

beforeAll(async () => {
  cluster = await createCluster();
});
afterAll(() => cluster.dispose());

it("a member that was cut off ends what was taken over meanwhile, and nothing else", async () => {
  const { one, two } = cluster;
  const source = { $case: "clone", value: { templateVmid: one.host.templateVmid, full: true } } as const;
  const spec = cloneSpec(one.host, { storage: "shared", source });
  await one.containers.converge(runningWish(spec), bounds());
  const neighbour = { vmid: VMID + 1, podId: FIRST.podId.replace(/1$/u, "2") };
  await one.containers.converge(runningWish(spec, neighbour), bounds());
  two.host.setFaults([{ memberOffline: "pve1" }]);
  const order = { ...FIRST, generation: 2n, volumeId: "", spec, overwrite: false, takeOverFrom: "pve1" };
  await two.containers.restore(order, deedOptions());
  const running = async () => [...(await readRunningVmids(one.paths))].toSorted((a, b) => a - b);
  expect(await running()).toEqual([VMID, VMID + 1]);
  // Cut off, it cannot know; back again, it does.
  one.host.setFaults([{ noQuorum: true }]);
  await expect(one.containers.stopStrays()).rejects.toMatchObject({ code: "NO_QUORUM", retryable: true });
  one.host.clearFaults();
  expect(await one.containers.stopStrays()).toEqual({ stopped: [VMID], running: [] });
  expect(await running()).toEqual([VMID + 1]);
  expect(await two.containers.stopStrays()).toEqual({ stopped: [], running: [] });
});
