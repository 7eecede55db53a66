import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { aTenant, anOnlineNode } from "../../../test/support/rows.ts";
import { startScriptedHost, type ScriptedEnd, type ScriptedHost } from "../../../test/support/scripted-host.ts";
import type { Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { createFleetView } from "../scheduling/fleet-view.ts";
import { cancelTask, findTask, requeueTask } from "../tasks/change-task.ts";
import { startTaskWorker, type TaskWorker } from "../tasks/task-worker.ts";
import { changePower, resumePod, suspendPod, type Accepted } from "./change-power.ts";
import { destroyPodNow } from "./destroy-pod.ts";
import { orderPod, type PodOrder } from "./order-pod.ts";
import { findPod } from "./pod.ts";
import { podSagas } from "./pod-sagas.ts";
import { reconcilePower } from "./reconcile-power.ts";
import { prepareRetry } from "./retry-work.ts";
import { scalePod } from "./scale-pod.ts";

const fleet = createFleetView();
let db: TestDatabase;
let tenantId: string;
let nodeId: string;
let host: ScriptedHost;
let worker: TaskWorker;
let script: (command: Command) => ScriptedEnd | undefined;

beforeAll(async () => {
  db = await createTestDatabase();
  nodeId = (await anOnlineNode(db.system)).id;
});
afterAll(() => db.close());
beforeEach(async () => {
  tenantId = (await aTenant(db.system)).id;
  script = () => undefined;
  host = startScriptedHost(db.system, (command) => script(command));
  worker = startTaskWorker({
    db: db.system,
    workerId: newId(),
    sagas: podSagas(fleet),
    log: pino({ level: "silent" }),
    onCommitted: () => {},
    pollMs: 10,
  });
});
afterEach(async () => {
  await worker.stop();
  await host.stop();
});

const who = () => ({ tenantId, actor: { kind: "user" as const, id: "customer" }, requestId: newId() });
const proven = () => ({ ...who(), isEmailVerified: () => Promise.resolve(true) });
const inTenant = <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => db.api.transaction(work, { tenantId });
const order = (wish: Partial<PodOrder> = { planCode: "STARTER" }): Promise<Accepted> =>
  inTenant((tx) =>
    orderPod(
      tx,
      { ...who(), defaultRegion: "local", fleet, isEmailVerified: () => Promise.resolve(false) },
      { hostname: "shop", ...wish },
    ),
  );

async function end(taskId: string): Promise<{ state: string; errorCode: string | null }> {
  const finished = ["succeeded", "failed", "cancelled"];
  const read = async () => await findTask(db.system, taskId);
  await expect.poll(async () => finished.includes((await read()).state), { timeout: 15_000, interval: 10 }).toBe(true);
  const { state, errorCode } = await read();
  return { state, errorCode };
}

async function activePod(): Promise<Accepted["pod"]> {
  const { pod, task } = await order();
  expect(await end(task.id)).toEqual({ state: "succeeded", errorCode: null });
  return await inTenant((tx) => findPod(tx, tenantId, pod.id));
}

const podNow = (id: string) => inTenant((tx) => findPod(tx, tenantId, id));

async function used(): Promise<Record<string, unknown> | undefined> {
  const [row] = await db.system.query(sql`
    SELECT used_cloud_pods AS pods, used_cpu_cores AS cores, used_ram_mb AS "memoryMb", used_disk_gb AS "diskGb" FROM cloud_pod_quotas WHERE tenant_id = ${tenantId}`);
  return row;
}

async function claim(podId: string): Promise<Record<string, unknown> | undefined> {
  const [row] = await db.system.query(
    sql`SELECT cpu, memory_mb AS "memoryMb", disk_gb AS "diskGb" FROM node_claims WHERE pod_id = ${podId}`,
  );
  return row;
}

async function allocations(podId: string): Promise<{ cores: number; open: boolean }[]> {
  return await db.system.query(
    sql`SELECT cores, upper_inf(valid) AS open FROM cloud_pod_allocations WHERE pod_id = ${podId} ORDER BY lower(valid)`,
  );
}

const fails =
  (name: string, errorCode = "RESIZE_FAILED") =>
  (command: Command): ScriptedEnd | undefined =>
    command.op?.$case === name ? { state: "failed", errorCode, retryable: false } : undefined;

test("scaling changes container, quota, claim and what is paid, and nothing twice", async () => {
  const pod = await activePod();
  const { task } = await inTenant((tx) => scalePod(tx, proven(), pod.id, { planCode: "CLOUD_POD_BUSINESS" }));
  expect(await end(task.id)).toEqual({ state: "succeeded", errorCode: null });
  expect(host.containers.get(pod.vmid)).toMatchObject({ cores: 3, memoryMb: 4096, diskGb: 100 });
  expect(await used()).toEqual({ pods: 1, cores: 3, memoryMb: 4096, diskGb: 100 });
  expect(await claim(pod.id)).toEqual({ cpu: 3, memoryMb: 4096, diskGb: 100 });
  expect(await allocations(pod.id)).toEqual([
    { cores: 1, open: false },
    { cores: 3, open: true },
  ]);
});

test("scaling that the host refuses gives everything back", async () => {
  const pod = await activePod();
  let refused = false;
  script = (command) => {
    if (refused || command.op?.$case !== "ensureContainer") return undefined;
    refused = true;
    return { state: "failed", errorCode: "RESIZE_FAILED", retryable: false };
  };
  const { task } = await inTenant((tx) => scalePod(tx, proven(), pod.id, { planCode: "CLOUD_POD_BUSINESS" }));
  expect(await end(task.id)).toEqual({ state: "failed", errorCode: "RESIZE_FAILED" });
  expect(await podNow(pod.id)).toMatchObject({
    cores: 1,
    memoryMb: 1024,
    diskGb: 30,
    planCode: "CLOUD_POD_STARTER",
    status: "active",
  });
  expect(await used()).toEqual({ pods: 1, cores: 1, memoryMb: 1024, diskGb: 30 });
  expect(await claim(pod.id)).toEqual({ cpu: 1, memoryMb: 1024, diskGb: 30 });
});

test("a disk does not shrink, and a size that is no change is refused", async () => {
  const pod = await activePod();
  const scale = (resources: { diskGb?: number; cores?: number }) =>
    inTenant((tx) => scalePod(tx, proven(), pod.id, { resources }));
  await expect(scale({ diskGb: 10 })).rejects.toMatchObject({ code: "DISK_SHRINK_UNSUPPORTED" });
  await expect(inTenant((tx) => scalePod(tx, proven(), pod.id, { planCode: "starter" }))).rejects.toMatchObject({
    code: "SCALE_WITHOUT_CHANGE",
  });
  await expect(scale({ cores: 400 })).rejects.toMatchObject({ code: "NO_CAPACITY" });
  expect(await used()).toEqual({ pods: 1, cores: 1, memoryMb: 1024, diskGb: 30 });
});

test("a lying resize is noticed by what the host has afterwards", async () => {
  const pod = await activePod();
  let lies = 2;
  script = (command) => {
    if (command.op?.$case !== "ensureContainer" || lies === 0) return undefined;
    lies -= 1;
    return { state: "succeeded", lies: true };
  };
  const { task } = await inTenant((tx) => scalePod(tx, proven(), pod.id, { resources: { cores: 2 } }));
  expect(await end(task.id)).toEqual({ state: "succeeded", errorCode: null });
  expect(host.containers.get(pod.vmid)?.cores).toBe(2);
  expect(await allocations(pod.id)).toHaveLength(2);
});

test("a suspended pod is out of the quota and comes back only as far as the quota allows", async () => {
  const pod = await activePod();
  const suspended = await inTenant((tx) => suspendPod(tx, who(), pod.id, "customer", "season is over"));
  expect(suspended.pod).toMatchObject({ status: "suspended", desiredPower: "stopped" });
  expect(await end(suspended.task.id)).toMatchObject({ state: "succeeded" });
  expect(await used()).toEqual({ pods: 0, cores: 0, memoryMb: 0, diskGb: 0 });
  expect(await claim(pod.id)).toBeDefined();

  await db.system.execute(sql`UPDATE cloud_pod_quotas SET max_cloud_pods = 0 WHERE tenant_id = ${tenantId}`);
  await expect(inTenant((tx) => resumePod(tx, who(), pod.id, "customer"))).rejects.toMatchObject({
    code: "QUOTA_EXCEEDED",
  });
  expect((await podNow(pod.id)).status).toBe("suspended");

  await db.system.execute(sql`UPDATE cloud_pod_quotas SET max_cloud_pods = 5 WHERE tenant_id = ${tenantId}`);
  const resumed = await inTenant((tx) => resumePod(tx, who(), pod.id, "customer"));
  expect(await end(resumed.task.id)).toMatchObject({ state: "succeeded" });
  expect(await podNow(pod.id)).toMatchObject({ status: "active", observedPower: "running" });
});

test("who was suspended for not paying does not resume himself", async () => {
  const pod = await activePod();
  const { task } = await inTenant((tx) => suspendPod(tx, who(), pod.id, "billing", "invoice overdue"));
  await end(task.id);
  await expect(inTenant((tx) => resumePod(tx, who(), pod.id, "customer"))).rejects.toMatchObject({
    code: "POD_ON_HOLD",
    details: { kind: "billing" },
  });
  expect((await podNow(pod.id)).status).toBe("suspended");
});

test("power changes leave the lifecycle alone, and other work waits its turn", async () => {
  const pod = await activePod();
  const stop = await inTenant((tx) => changePower(tx, who(), pod.id, "stop"));
  await expect(inTenant((tx) => changePower(tx, who(), pod.id, "start"))).rejects.toMatchObject({ code: "POD_BUSY" });
  expect(await end(stop.task.id)).toMatchObject({ state: "succeeded" });
  expect(await podNow(pod.id)).toMatchObject({ status: "active", desiredPower: "stopped", observedPower: "stopped" });
  const restart = await inTenant((tx) => changePower(tx, who(), String(pod.vmid), "restart"));
  expect(await end(restart.task.id)).toMatchObject({ state: "succeeded" });
  expect(host.carriedOut.slice(-2)).toEqual(["ensurePower", "reboot"]);
});

test("an order that is cancelled leaves nothing", async () => {
  let isHeld = true;
  script = (command) =>
    command.op?.$case === "ensurePower" && isHeld
      ? { state: "failed", errorCode: "LOCKED", retryable: true }
      : undefined;
  const { pod, task } = await order();
  await expect
    .poll(async () => (await findTask(db.system, task.id)).step, { timeout: 10_000, interval: 10 })
    .toBe("start");
  await inTenant((tx) => cancelTask(tx, task.id));
  expect(await end(task.id)).toEqual({ state: "cancelled", errorCode: "CANCELLED" });
  isHeld = false;
  expect((await podNow(pod.id)).status).toBe("deleted");
  expect(host.containers.has(pod.vmid)).toBe(false);
  expect(await used()).toEqual({ pods: 0, cores: 0, memoryMb: 0, diskGb: 0 });
  expect(await claim(pod.id)).toBeUndefined();
  await expect(inTenant((tx) => cancelTask(tx, task.id))).rejects.toMatchObject({ code: "TASK_FINISHED" });
});

test("a failed order can be tried again and takes a new generation", async () => {
  script = fails("ensurePower", "START_FAILED");
  const { pod, task } = await order();
  expect(await end(task.id)).toEqual({ state: "failed", errorCode: "START_FAILED" });
  expect(await podNow(pod.id)).toMatchObject({ status: "failed", nodeId: null, lastErrorCode: "START_FAILED" });
  expect(await used()).toEqual({ pods: 0, cores: 0, memoryMb: 0, diskGb: 0 });

  script = () => undefined;
  const failed = await findTask(db.system, task.id);
  await inTenant(async (tx) => {
    await prepareRetry(tx, failed);
    return await requeueTask(tx, failed, "reserve", 60_000);
  });
  worker.wake();
  expect(await end(task.id)).toMatchObject({ state: "succeeded" });
  expect(await podNow(pod.id)).toMatchObject({ status: "active", generation: 2n, nodeId, lastErrorCode: null });
  expect(await used()).toEqual({ pods: 1, cores: 1, memoryMb: 1024, diskGb: 30 });
});

test("an id that a stranger has on the host fails the order, leaves the stranger, and is not tried again", async () => {
  script = (command) => {
    const isTaken = command.op?.$case === "ensureContainer" || command.op?.$case === "ensureAbsent";
    return isTaken ? { state: "failed", errorCode: "VMID_CONFLICT", retryable: false } : undefined;
  };
  const { pod, task } = await order();
  expect(await end(task.id)).toEqual({ state: "failed", errorCode: "VMID_CONFLICT" });
  expect(await claim(pod.id)).toBeUndefined();
  script = () => undefined;
  const failed = await findTask(db.system, task.id);
  await inTenant(async (tx) => {
    await prepareRetry(tx, failed);
    return await requeueTask(tx, failed, "reserve", 60_000);
  });
  expect(await end(task.id)).toMatchObject({ state: "succeeded" });
  expect((await podNow(pod.id)).vmid).not.toBe(pod.vmid);
});

test("destroying ends the bill with the request, and the place is free after the host confirmed", async () => {
  const pod = await activePod();
  const asked = new Date();
  script = (command) =>
    command.op?.$case === "ensureAbsent" && Date.now() - asked.getTime() < 300
      ? { state: "failed", errorCode: "LOCKED", retryable: true }
      : undefined;
  const { task } = await inTenant((tx) => destroyPodNow(tx, who(), pod.id, asked));
  expect(await used()).toEqual({ pods: 0, cores: 0, memoryMb: 0, diskGb: 0 });
  expect(await claim(pod.id)).toBeDefined();
  expect(await end(task.id)).toMatchObject({ state: "succeeded" });
  expect(await claim(pod.id)).toBeUndefined();
  const [allocation] = await db.system.query<{ until: Date }>(
    sql`SELECT upper(valid) AS until FROM cloud_pod_allocations WHERE pod_id = ${pod.id}`,
  );
  expect(allocation?.until).toEqual(asked);
  await expect(inTenant((tx) => destroyPodNow(tx, who(), pod.id, new Date()))).rejects.toMatchObject({
    code: "POD_WRONG_STATE",
  });
});

test("the free plan needs a proven address and is had once", async () => {
  await expect(order({ planCode: "CLOUD_POD_STUDENT" })).rejects.toMatchObject({ code: "EMAIL_NOT_VERIFIED" });
  const proven = { ...who(), defaultRegion: "local", fleet, isEmailVerified: () => Promise.resolve(true) };
  await inTenant((tx) => orderPod(tx, proven, { planCode: "STUDENT", hostname: "free" }));
  await expect(
    inTenant((tx) => orderPod(tx, proven, { planCode: "STUDENT", hostname: "free-2" })),
  ).rejects.toMatchObject({ code: "PLAN_LIMIT_REACHED" });
});

test("an order without a place leaves nothing", async () => {
  await expect(order({ resources: { cores: 1, memoryMb: 1024, diskGb: 60_000 } })).rejects.toMatchObject({
    code: "NO_CAPACITY",
  });
  await expect(order({ planCode: "STARTER", region: "mars" })).rejects.toMatchObject({ code: "NO_CAPACITY" });
  for (const table of [
    sql`cloud_pods`,
    sql`subscriptions`,
    sql`cloud_pod_provisioning_tasks`,
    sql`node_claims`,
    sql`node_commands`,
  ]) {
    expect(await db.system.query(sql`SELECT FROM ${table} WHERE tenant_id = ${tenantId}`)).toEqual([]);
  }
});

test("what the host has not made smaller yet is not promised to others", async () => {
  const pod = await activePod();
  const grown = await inTenant((tx) => scalePod(tx, proven(), pod.id, { resources: { cores: 4, memoryMb: 4096 } }));
  await end(grown.task.id);
  let isAway = true;
  script = (command) =>
    isAway && command.op?.$case === "ensureContainer"
      ? { state: "failed", errorCode: "LOCKED", retryable: true }
      : undefined;
  const shrunk = await inTenant((tx) => scalePod(tx, proven(), pod.id, { resources: { cores: 1, memoryMb: 1024 } }));
  expect(await claim(pod.id)).toEqual({ cpu: 4, memoryMb: 4096, diskGb: 30 });
  isAway = false;
  expect(await end(shrunk.task.id)).toMatchObject({ state: "succeeded" });
  expect(await claim(pod.id)).toEqual({ cpu: 1, memoryMb: 1024, diskGb: 30 });
});

test("a shrink that fails comes back even when the quota has been used up meanwhile", async () => {
  const pod = await activePod();
  await end((await inTenant((tx) => scalePod(tx, proven(), pod.id, { resources: { cores: 4 } }))).task.id);
  let refused = false;
  script = (command) => {
    if (refused || command.op?.$case !== "ensureContainer") return undefined;
    refused = true;
    return { state: "failed", errorCode: "RESIZE_FAILED", retryable: false };
  };
  const shrunk = await inTenant((tx) => scalePod(tx, proven(), pod.id, { resources: { cores: 1 } }));
  await db.system.execute(sql`UPDATE cloud_pod_quotas SET max_cpu_cores = 1 WHERE tenant_id = ${tenantId}`);
  expect(await end(shrunk.task.id)).toMatchObject({ state: "failed" });
  expect(await used()).toMatchObject({ cores: 4 });
  expect(await claim(pod.id)).toMatchObject({ cpu: 4 });
});

test("a suspension and the system's own work are not the customer's to cancel", async () => {
  const pod = await activePod();
  script = (command) =>
    command.op?.$case === "ensurePower" ? { state: "failed", errorCode: "LOCKED", retryable: true } : undefined;
  const { task } = await inTenant((tx) => suspendPod(tx, who(), pod.id, "billing", undefined));
  await expect(inTenant((tx) => cancelTask(tx, task.id))).rejects.toMatchObject({ code: "TASK_NOT_CANCELLABLE" });
  script = () => undefined;
  expect(await end(task.id)).toMatchObject({ state: "succeeded" });
  await db.system
    .execute(sql`UPDATE cloud_pod_provisioning_tasks SET state = 'waiting', finished_at = NULL, type = 'stop', requested_by = 'system:budgets',
    run_after = now() + interval '1 hour' WHERE id = ${task.id}`);
  await expect(inTenant((tx) => cancelTask(tx, task.id))).rejects.toMatchObject({ code: "TASK_NOT_YOURS" });
});

test("a step that throws is a try like another, and the tries end", async () => {
  script = fails("ensurePower", "START_FAILED");
  const { pod, task } = await order();
  await end(task.id);
  await db.system.execute(sql`UPDATE node_capacity SET memory_reserved_mb = memory_total_mb`);
  const failed = await findTask(db.system, task.id);
  await inTenant(async (tx) => {
    await prepareRetry(tx, failed);
    return await requeueTask(tx, failed, "reserve", 600_000);
  });
  await expect
    .poll(async () => (await findTask(db.system, task.id)).attempts, { timeout: 10_000, interval: 10 })
    .toBeGreaterThan(0);
  // The backoff is not waited for: the next try is due now.
  await expect
    .poll(
      async () => {
        await db.system.execute(sql`UPDATE cloud_pod_provisioning_tasks SET run_after = now() WHERE id = ${task.id}`);
        return (await findTask(db.system, task.id)).state;
      },
      { timeout: 20_000, interval: 20 },
    )
    .toBe("failed");
  expect(await findTask(db.system, task.id)).toMatchObject({ errorCode: "NO_CAPACITY" });
  expect((await podNow(pod.id)).status).toBe("failed");
  expect(await used()).toMatchObject({ pods: 0 });
  await db.system.execute(sql`UPDATE node_capacity SET memory_reserved_mb = 0`);
});

test("an old failure cannot be tried again over what came after it", async () => {
  const pod = await activePod();
  let refused = false;
  script = (command) => {
    if (refused || command.op?.$case !== "ensureContainer") return undefined;
    refused = true;
    return { state: "failed", errorCode: "RESIZE_FAILED", retryable: false };
  };
  const first = await inTenant((tx) => scalePod(tx, proven(), pod.id, { resources: { diskGb: 40 } }));
  await end(first.task.id);
  await end((await inTenant((tx) => scalePod(tx, proven(), pod.id, { resources: { diskGb: 60 } }))).task.id);
  const failed = await findTask(db.system, first.task.id);
  await expect(inTenant((tx) => prepareRetry(tx, failed))).rejects.toMatchObject({ code: "TASK_OUTDATED" });
  await expect(inTenant((tx) => requeueTask(tx, failed, "resize", 60_000))).rejects.toMatchObject({
    code: "TASK_OUTDATED",
  });
});

test("the free plan's limits hold for scaling too", async () => {
  const small = { cores: 1, memoryMb: 1024, diskGb: 2 };
  const pods = [];
  for (const hostname of ["free-a", "free-b"]) {
    const { pod, task } = await order({ planCode: undefined, resources: small, hostname });
    await end(task.id);
    pods.push(pod.id);
  }
  const [a = "", b = ""] = pods;
  await expect(
    inTenant((tx) =>
      scalePod(tx, { ...who(), isEmailVerified: () => Promise.resolve(false) }, a, { planCode: "STUDENT" }),
    ),
  ).rejects.toMatchObject({ code: "EMAIL_NOT_VERIFIED" });
  await end((await inTenant((tx) => scalePod(tx, proven(), a, { planCode: "STUDENT" }))).task.id);
  await expect(inTenant((tx) => scalePod(tx, proven(), b, { planCode: "STUDENT" }))).rejects.toMatchObject({
    code: "PLAN_LIMIT_REACHED",
  });
  const [subscription] = await db.system.query<{ plan: string }>(
    sql`SELECT plan_code AS plan FROM subscriptions WHERE external_ref = ${a}`,
  );
  expect(subscription?.plan).toBe("CLOUD_POD_STUDENT");
});

test("work that was given up is withdrawn from the host", async () => {
  const pod = await activePod();
  await host.stop();
  const { task } = await inTenant((tx) => changePower(tx, who(), pod.id, "restart"));
  await db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET deadline_at = now() - interval '1 s', run_after = now() WHERE id = ${task.id}`,
  );
  worker.wake();
  expect(await end(task.id)).toEqual({ state: "failed", errorCode: "TASK_DEADLINE" });
  const [command] = await db.system.query<{ state: string }>(
    sql`SELECT state FROM node_commands WHERE task_id = ${task.id}`,
  );
  expect(command?.state).toBe("cancelled");
});

test("a pod that its host sees stopped is started again, and one on hold is not", async () => {
  const pod = await activePod();
  await db.system.execute(
    sql`UPDATE cloud_pods SET observed_power = 'stopped', observed_at = now() WHERE id = ${pod.id}`,
  );
  await db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET finished_at = now() - interval '10 minutes' WHERE pod_id = ${pod.id}`,
  );
  expect(await reconcilePower(db.system)).toBe(1);
  expect(await reconcilePower(db.system)).toBe(0);
  await expect
    .poll(async () => (await podNow(pod.id)).observedPower, { timeout: 10_000, interval: 10 })
    .toBe("running");

  await db.system.execute(
    sql`UPDATE cloud_pods SET observed_power = 'stopped', observed_at = now() WHERE id = ${pod.id}`,
  );
  await db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET finished_at = now() - interval '10 minutes' WHERE pod_id = ${pod.id} AND finished_at IS NOT NULL`,
  );
  await db.system.execute(sql`
    INSERT INTO cloud_pod_holds (id, tenant_id, pod_id, kind, effect, actor) VALUES (${newId()}, ${tenantId}, ${pod.id}, 'abuse', 'stop', 'test')`);
  expect(await reconcilePower(db.system)).toBe(0);
});
