import { expect, test } from "vitest";
import { failing, failingOnce, PodWorkbench } from "../../../test/support/pod-workbench.ts";
import { aTenant } from "../../../test/support/rows.ts";
import { sql } from "../platform/sql.ts";
import { cancelTask, findTask, requeueTask } from "../tasks/change-task.ts";
import { changePower, resumePod, suspendPod } from "./change-power.ts";
import { destroyPodNow } from "./destroy-pod.ts";
import { orderPod } from "./order-pod.ts";
import { prepareRetry } from "./retry-work.ts";
import { scalePod } from "./scale-pod.ts";

const bench = new PodWorkbench();

test("scaling changes container, quota, claim and what is paid, and nothing twice", async () => {
  const pod = await bench.activePod();
  const { task } = await bench.inTenant((tx) =>
    scalePod(tx, bench.proven(), pod.id, { planCode: "CLOUD_POD_BUSINESS" }),
  );
  expect(await bench.end(task.id)).toEqual({ state: "succeeded", errorCode: null });
  expect(bench.host.containers.get(pod.vmid)).toMatchObject({ cores: 3, memoryMb: 4096, diskGb: 100 });
  expect(await bench.used()).toEqual({ pods: 1, cores: 3, memoryMb: 4096, diskGb: 100 });
  expect(await bench.claim(pod.id)).toEqual({ cpu: 3, memoryMb: 4096, diskGb: 100 });
  expect(await bench.allocations(pod.id)).toEqual([
    { cores: 1, open: false },
    { cores: 3, open: true },
  ]);
});

test("scaling that the host refuses gives everything back", async () => {
  const pod = await bench.activePod();
  bench.script = failingOnce("ensureContainer", "RESIZE_FAILED");
  const { task } = await bench.inTenant((tx) =>
    scalePod(tx, bench.proven(), pod.id, { planCode: "CLOUD_POD_BUSINESS" }),
  );
  expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "RESIZE_FAILED" });
  expect(await bench.podNow(pod.id)).toMatchObject({
    cores: 1,
    memoryMb: 1024,
    diskGb: 30,
    planCode: "CLOUD_POD_STARTER",
    status: "active",
  });
  expect(await bench.used()).toEqual({ pods: 1, cores: 1, memoryMb: 1024, diskGb: 30 });
  expect(await bench.claim(pod.id)).toEqual({ cpu: 1, memoryMb: 1024, diskGb: 30 });
});

test("a disk does not shrink, and a size that is no change is refused", async () => {
  const pod = await bench.activePod();
  const scale = (resources: { diskGb?: number; cores?: number }) =>
    bench.inTenant((tx) => scalePod(tx, bench.proven(), pod.id, { resources }));
  await expect(scale({ diskGb: 10 })).rejects.toMatchObject({ code: "DISK_SHRINK_UNSUPPORTED" });
  await expect(
    bench.inTenant((tx) => scalePod(tx, bench.proven(), pod.id, { planCode: "starter" })),
  ).rejects.toMatchObject({
    code: "SCALE_WITHOUT_CHANGE",
  });
  // Less than all of a size, and still what the pod has: it keeps its plan.
  await expect(scale({ diskGb: 30 })).rejects.toMatchObject({ code: "SCALE_WITHOUT_CHANGE" });
  await expect(scale({})).rejects.toMatchObject({ code: "SCALE_WITHOUT_CHANGE" });
  expect(await bench.podNow(pod.id)).toMatchObject({ planCode: "CLOUD_POD_STARTER", billingMode: "plan" });
  await expect(scale({ cores: 400 })).rejects.toMatchObject({ code: "NO_CAPACITY" });
  expect(await bench.used()).toEqual({ pods: 1, cores: 1, memoryMb: 1024, diskGb: 30 });
});

test("a lying resize is noticed by what the host has afterwards", async () => {
  const pod = await bench.activePod();
  let lies = 2;
  bench.script = (command) => {
    if (command.op?.$case !== "ensureContainer" || lies === 0) return undefined;
    lies -= 1;
    return { state: "succeeded", lies: true };
  };
  const { task } = await bench.inTenant((tx) => scalePod(tx, bench.proven(), pod.id, { resources: { cores: 2 } }));
  expect(await bench.end(task.id)).toEqual({ state: "succeeded", errorCode: null });
  expect(bench.host.containers.get(pod.vmid)?.cores).toBe(2);
  expect(await bench.allocations(pod.id)).toHaveLength(2);
});

test("a suspended pod is out of the quota and comes back only as far as the quota allows", async () => {
  const pod = await bench.activePod();
  const suspended = await bench.inTenant((tx) => suspendPod(tx, bench.who(), pod.id, "customer", "season is over"));
  expect(suspended.pod).toMatchObject({ status: "suspended", desiredPower: "stopped" });
  expect(await bench.end(suspended.task.id)).toMatchObject({ state: "succeeded" });
  expect(await bench.used()).toEqual({ pods: 0, cores: 0, memoryMb: 0, diskGb: 0 });
  expect(await bench.claim(pod.id)).toBeDefined();

  await bench.db.system.execute(
    sql`UPDATE cloud_pod_quotas SET max_cloud_pods = 0 WHERE tenant_id = ${bench.tenantId}`,
  );
  await expect(bench.inTenant((tx) => resumePod(tx, bench.who(), pod.id, "customer"))).rejects.toMatchObject({
    code: "QUOTA_EXCEEDED",
  });
  expect((await bench.podNow(pod.id)).status).toBe("suspended");

  await bench.db.system.execute(
    sql`UPDATE cloud_pod_quotas SET max_cloud_pods = 5 WHERE tenant_id = ${bench.tenantId}`,
  );
  const resumed = await bench.inTenant((tx) => resumePod(tx, bench.who(), pod.id, "customer"));
  expect(await bench.end(resumed.task.id)).toMatchObject({ state: "succeeded" });
  expect(await bench.podNow(pod.id)).toMatchObject({ status: "active", observedPower: "running" });
});

test("who was suspended for not paying does not resume himself", async () => {
  const pod = await bench.activePod();
  const { task } = await bench.inTenant((tx) => suspendPod(tx, bench.who(), pod.id, "billing", "invoice overdue"));
  await bench.end(task.id);
  await expect(bench.inTenant((tx) => resumePod(tx, bench.who(), pod.id, "customer"))).rejects.toMatchObject({
    code: "POD_ON_HOLD",
    details: { kind: "billing" },
  });
  expect((await bench.podNow(pod.id)).status).toBe("suspended");
});

test("power changes leave the lifecycle alone, and other work waits its turn", async () => {
  const pod = await bench.activePod();
  // The host refuses for a while: the stop is under way until the next order has been heard.
  bench.script = () => ({ state: "failed", errorCode: "LOCKED", retryable: true });
  const stop = await bench.inTenant((tx) => changePower(tx, bench.who(), pod.id, "stop"));
  await expect(bench.inTenant((tx) => changePower(tx, bench.who(), pod.id, "start"))).rejects.toMatchObject({
    code: "POD_BUSY",
  });
  bench.script = () => undefined;
  expect(await bench.end(stop.task.id)).toMatchObject({ state: "succeeded" });
  expect(await bench.podNow(pod.id)).toMatchObject({
    status: "active",
    desiredPower: "stopped",
    observedPower: "stopped",
  });
  const restart = await bench.inTenant((tx) => changePower(tx, bench.who(), String(pod.vmid), "restart"));
  expect(await bench.end(restart.task.id)).toMatchObject({ state: "succeeded" });
  expect(bench.host.carriedOut.slice(-2)).toEqual(["ensurePower", "reboot"]);
});

test("an order that is cancelled leaves nothing", async () => {
  let isHeld = true;
  bench.script = (command) =>
    command.op?.$case === "ensurePower" && isHeld
      ? { state: "failed", errorCode: "LOCKED", retryable: true }
      : undefined;
  const { pod, task } = await bench.order();
  await expect
    .poll(async () => (await findTask(bench.db.system, task.id)).step, { timeout: 60_000, interval: 10 })
    .toBe("start");
  await bench.inTenant((tx) => cancelTask(tx, task.tenantId, task.id));
  expect(await bench.end(task.id)).toEqual({ state: "cancelled", errorCode: "CANCELLED" });
  isHeld = false;
  expect((await bench.podNow(pod.id)).status).toBe("deleted");
  expect(bench.host.containers.has(pod.vmid)).toBe(false);
  expect(await bench.used()).toEqual({ pods: 0, cores: 0, memoryMb: 0, diskGb: 0 });
  expect(await bench.claim(pod.id)).toBeUndefined();
  await expect(bench.inTenant((tx) => cancelTask(tx, task.tenantId, task.id))).rejects.toMatchObject({
    code: "TASK_FINISHED",
  });
});

test("a failed order can be tried again and takes a new generation", async () => {
  bench.script = failing("ensurePower", "START_FAILED");
  const { pod, task } = await bench.order();
  expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "START_FAILED" });
  expect(await bench.podNow(pod.id)).toMatchObject({ status: "failed", nodeId: null, lastErrorCode: "START_FAILED" });
  expect(await bench.used()).toEqual({ pods: 0, cores: 0, memoryMb: 0, diskGb: 0 });

  bench.script = () => undefined;
  const failed = await findTask(bench.db.system, task.id);
  await bench.inTenant(async (tx) => {
    await prepareRetry(tx, failed);
    return await requeueTask(tx, failed, "reserve", 60_000);
  });
  bench.worker.wake();
  expect(await bench.end(task.id)).toMatchObject({ state: "succeeded" });
  expect(await bench.podNow(pod.id)).toMatchObject({
    status: "active",
    generation: 2n,
    nodeId: bench.nodeId,
    lastErrorCode: null,
  });
  expect(await bench.used()).toEqual({ pods: 1, cores: 1, memoryMb: 1024, diskGb: 30 });
});

test("an id that a stranger has on the host fails the order, leaves the stranger, and is not tried again", async () => {
  bench.script = (command) => {
    const isTaken = command.op?.$case === "ensureContainer" || command.op?.$case === "ensureAbsent";
    return isTaken ? { state: "failed", errorCode: "VMID_CONFLICT", retryable: false } : undefined;
  };
  const { pod, task } = await bench.order();
  expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "VMID_CONFLICT" });
  expect(await bench.claim(pod.id)).toBeUndefined();
  bench.script = () => undefined;
  const failed = await findTask(bench.db.system, task.id);
  await bench.inTenant(async (tx) => {
    await prepareRetry(tx, failed);
    return await requeueTask(tx, failed, "reserve", 60_000);
  });
  expect(await bench.end(task.id)).toMatchObject({ state: "succeeded" });
  expect((await bench.podNow(pod.id)).vmid).not.toBe(pod.vmid);
});

test("destroying ends the bill with the request, and the place is free after the host confirmed", async () => {
  const pod = await bench.activePod();
  const asked = new Date();
  bench.script = (command) =>
    command.op?.$case === "ensureAbsent" ? { state: "failed", errorCode: "LOCKED", retryable: true } : undefined;
  const { task } = await bench.inTenant((tx) => destroyPodNow(tx, bench.who(), pod.id, asked));
  expect(await bench.used()).toEqual({ pods: 0, cores: 0, memoryMb: 0, diskGb: 0 });
  expect(await bench.claim(pod.id)).toBeDefined();
  bench.script = () => undefined;
  expect(await bench.end(task.id)).toMatchObject({ state: "succeeded" });
  expect(await bench.claim(pod.id)).toBeUndefined();
  const [allocation] = await bench.db.system.query<{ until: Date }>(
    sql`SELECT upper(valid) AS until FROM cloud_pod_allocations WHERE pod_id = ${pod.id}`,
  );
  expect(allocation?.until).toEqual(asked);
  await expect(bench.inTenant((tx) => destroyPodNow(tx, bench.who(), pod.id, new Date()))).rejects.toMatchObject({
    code: "POD_WRONG_STATE",
  });
});

test("a destroy during an order wins, and nothing is left", async () => {
  const { pod } = await bench.order();
  const { task } = await bench.inTenant((tx) => destroyPodNow(tx, bench.who(), pod.id, new Date()));
  expect(await bench.end(task.id)).toMatchObject({ state: "succeeded" });
  expect((await bench.podNow(pod.id)).status).toBe("deleted");
  expect(bench.host.containers.has(pod.vmid)).toBe(false);
  expect(await bench.used()).toEqual({ pods: 0, cores: 0, memoryMb: 0, diskGb: 0 });
  expect(await bench.claim(pod.id)).toBeUndefined();
});

test("64 orders at once at one below the limit grant exactly one", async () => {
  bench.tenantId = (await aTenant(bench.db.system, { pods: 1 })).id;
  /** Who has waited for a connection until his patience was at an end, as on a machine that stands still, asks again. */
  const order = (hostname: string): Promise<unknown> =>
    bench.order({ planCode: "STARTER", hostname }).catch((error: unknown) => {
      if (!String(error).includes("timeout exceeded when trying to connect")) throw error;
      return order(hostname);
    });
  const orders = Array.from({ length: 64 }, (_, index) => order(`race-${index}`));
  const results = await Promise.allSettled(orders);
  const refusals = results.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
  expect(refusals).toHaveLength(63);
  for (const refusal of refusals) expect(refusal).toMatchObject({ code: "QUOTA_EXCEEDED" });
  expect(await bench.db.system.query(sql`SELECT FROM cloud_pods WHERE tenant_id = ${bench.tenantId}`)).toHaveLength(1);
});

test("the free plan needs a proven address and is had once", async () => {
  await expect(bench.order({ planCode: "CLOUD_POD_STUDENT" })).rejects.toMatchObject({ code: "EMAIL_NOT_VERIFIED" });
  const proven = {
    ...bench.who(),
    defaultRegion: "local",
    fleet: bench.fleet,
    isEmailVerified: () => Promise.resolve(true),
  };
  await bench.inTenant((tx) => orderPod(tx, proven, { planCode: "STUDENT", hostname: "free" }));
  await expect(
    bench.inTenant((tx) => orderPod(tx, proven, { planCode: "STUDENT", hostname: "free-2" })),
  ).rejects.toMatchObject({ code: "PLAN_LIMIT_REACHED" });
});

test("an order without a place leaves nothing", async () => {
  await expect(bench.order({ resources: { cores: 1, memoryMb: 1024, diskGb: 60_000 } })).rejects.toMatchObject({
    code: "NO_CAPACITY",
  });
  await expect(bench.order({ planCode: "STARTER", region: "mars" })).rejects.toMatchObject({ code: "REGION_UNKNOWN" });
  for (const table of [
    sql`cloud_pods`,
    sql`subscriptions`,
    sql`cloud_pod_provisioning_tasks`,
    sql`node_claims`,
    sql`node_commands`,
  ]) {
    expect(await bench.db.system.query(sql`SELECT FROM ${table} WHERE tenant_id = ${bench.tenantId}`)).toEqual([]);
  }
});
