import { expect, test } from "vitest";
import { failing, failingOnce, PodWorkbench } from "../../../test/support/pod-workbench.ts";
import { standingStill } from "../../../test/support/standing-still.ts";
import { newId } from "@cloudpods/shared/ids";
import { sql } from "../platform/sql.ts";
import { cancelTask, findTask, requeueTask } from "../tasks/change-task.ts";
import { changePower, suspendPod } from "./change-power.ts";
import { reconcilePower } from "./reconcile-power.ts";
import { prepareRetry } from "./retry-work.ts";
import { scalePod } from "./scale-pod.ts";

const bench = new PodWorkbench();

test("what the host has not made smaller yet is not promised to others", async () => {
  const pod = await bench.activePod();
  const grown = await bench.inTenant((tx) =>
    scalePod(tx, bench.proven(), pod.id, { resources: { cores: 4, memoryMb: 4096 } }),
  );
  await bench.end(grown.task.id);
  let isAway = true;
  bench.script = (command) =>
    isAway && command.op?.$case === "ensureContainer"
      ? { state: "failed", errorCode: "LOCKED", retryable: true }
      : undefined;
  const shrunk = await bench.inTenant((tx) =>
    scalePod(tx, bench.proven(), pod.id, { resources: { cores: 1, memoryMb: 1024 } }),
  );
  expect(await bench.claim(pod.id)).toEqual({ cpu: 4, memoryMb: 4096, diskGb: 30 });
  isAway = false;
  expect(await bench.end(shrunk.task.id)).toMatchObject({ state: "succeeded" });
  expect(await bench.claim(pod.id)).toEqual({ cpu: 1, memoryMb: 1024, diskGb: 30 });
});

test("a shrink that fails comes back even when the quota has been used up meanwhile", async () => {
  const pod = await bench.activePod();
  await bench.end(
    (await bench.inTenant((tx) => scalePod(tx, bench.proven(), pod.id, { resources: { cores: 4 } }))).task.id,
  );
  bench.script = failingOnce("ensureContainer", "RESIZE_FAILED");
  const shrunk = await bench.inTenant((tx) => scalePod(tx, bench.proven(), pod.id, { resources: { cores: 1 } }));
  await bench.db.system.execute(sql`UPDATE cloud_pod_quotas SET max_cpu_cores = 1 WHERE tenant_id = ${bench.tenantId}`);
  expect(await bench.end(shrunk.task.id)).toMatchObject({ state: "failed" });
  expect(await bench.used()).toMatchObject({ cores: 4 });
  expect(await bench.claim(pod.id)).toMatchObject({ cpu: 4 });
});

test("a suspension and the system's own work are not the customer's to cancel", async () => {
  const pod = await bench.activePod();
  bench.script = (command) =>
    command.op?.$case === "ensurePower" ? { state: "failed", errorCode: "LOCKED", retryable: true } : undefined;
  const { task } = await bench.inTenant((tx) => suspendPod(tx, bench.who(), pod.id, "billing", undefined));
  await expect(bench.inTenant((tx) => cancelTask(tx, task.tenantId, task.id))).rejects.toMatchObject({
    code: "TASK_NOT_CANCELLABLE",
  });
  bench.script = () => undefined;
  expect(await bench.end(task.id)).toMatchObject({ state: "succeeded" });
  await bench.db.system
    .execute(sql`UPDATE cloud_pod_provisioning_tasks SET state = 'waiting', finished_at = NULL, type = 'stop', requested_by = 'system:budgets',
    run_after = now() + interval '1 hour' WHERE id = ${task.id}`);
  await expect(bench.inTenant((tx) => cancelTask(tx, task.tenantId, task.id))).rejects.toMatchObject({
    code: "TASK_NOT_YOURS",
  });
});

test("a step that throws is a try like another, and the tries end", async () => {
  bench.script = failing("ensurePower", "START_FAILED");
  const { pod, task } = await bench.order();
  await bench.end(task.id);
  await bench.db.system.execute(sql`UPDATE node_capacity SET memory_reserved_mb = memory_total_mb`);
  const failed = await findTask(bench.db.system, task.id);
  await bench.inTenant(async (tx) => {
    await prepareRetry(tx, failed);
    return await requeueTask(tx, failed, "reserve", 600_000);
  });
  await expect
    .poll(async () => (await findTask(bench.db.system, task.id)).attempts, { timeout: 60_000, interval: 10 })
    .toBeGreaterThan(0);
  // The backoff is not waited for: the next try is due now.
  await expect
    .poll(
      async () => {
        await bench.db.system.execute(
          sql`UPDATE cloud_pod_provisioning_tasks SET run_after = now() WHERE id = ${task.id}`,
        );
        return (await findTask(bench.db.system, task.id)).state;
      },
      { timeout: 60_000, interval: 20 },
    )
    .toBe("failed");
  expect(await findTask(bench.db.system, task.id)).toMatchObject({ errorCode: "NO_CAPACITY" });
  expect((await bench.podNow(pod.id)).status).toBe("failed");
  expect(await bench.used()).toMatchObject({ pods: 0 });
  await bench.db.system.execute(sql`UPDATE node_capacity SET memory_reserved_mb = 0`);
});

test("an old failure cannot be tried again over what came after it", async () => {
  const pod = await bench.activePod();
  bench.script = failingOnce("ensureContainer", "RESIZE_FAILED");
  const first = await bench.inTenant((tx) => scalePod(tx, bench.proven(), pod.id, { resources: { diskGb: 40 } }));
  await bench.end(first.task.id);
  await bench.end(
    (await bench.inTenant((tx) => scalePod(tx, bench.proven(), pod.id, { resources: { diskGb: 60 } }))).task.id,
  );
  const failed = await findTask(bench.db.system, first.task.id);
  await expect(bench.inTenant((tx) => prepareRetry(tx, failed))).rejects.toMatchObject({ code: "TASK_OUTDATED" });
  await expect(bench.inTenant((tx) => requeueTask(tx, failed, "resize", 60_000))).rejects.toMatchObject({
    code: "TASK_OUTDATED",
  });
});

test("the free plan's limits hold for scaling too", async () => {
  const small = { cores: 1, memoryMb: 1024, diskGb: 2 };
  const pods = [];
  for (const hostname of ["free-a", "free-b"]) {
    const { pod, task } = await bench.order({ planCode: undefined, resources: small, hostname });
    await bench.end(task.id);
    pods.push(pod.id);
  }
  const [a = "", b = ""] = pods;
  await expect(
    bench.inTenant((tx) =>
      scalePod(tx, { ...bench.who(), isEmailVerified: () => Promise.resolve(false) }, a, { planCode: "STUDENT" }),
    ),
  ).rejects.toMatchObject({ code: "EMAIL_NOT_VERIFIED" });
  await bench.end((await bench.inTenant((tx) => scalePod(tx, bench.proven(), a, { planCode: "STUDENT" }))).task.id);
  await expect(bench.inTenant((tx) => scalePod(tx, bench.proven(), b, { planCode: "STUDENT" }))).rejects.toMatchObject({
    code: "PLAN_LIMIT_REACHED",
  });
  const [subscription] = await bench.db.system.query<{ plan: string }>(
    sql`SELECT plan_code AS plan FROM subscriptions WHERE external_ref = ${a}`,
  );
  expect(subscription?.plan).toBe("CLOUD_POD_STUDENT");
});

test("work that was given up is withdrawn from the host", async () => {
  const pod = await bench.activePod();
  await bench.host.stop();
  const { task } = await bench.inTenant((tx) => changePower(tx, bench.who(), pod.id, "restart"));
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET deadline_at = now() - interval '1 s', run_after = now() WHERE id = ${task.id}`,
  );
  bench.worker.wake();
  expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "TASK_DEADLINE" });
  const [command] = await bench.db.system.query<{ state: string }>(
    sql`SELECT state FROM node_commands WHERE task_id = ${task.id}`,
  );
  expect(command?.state).toBe("cancelled");
});

test("a pod that its host sees stopped is started again, and one on hold is not", async () => {
  const pod = await bench.activePod();
  await bench.db.system.execute(
    sql`UPDATE cloud_pods SET observed_power = 'stopped', observed_at = now() WHERE id = ${pod.id}`,
  );
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET finished_at = now() - interval '10 minutes' WHERE pod_id = ${pod.id}`,
  );
  expect(await reconcilePower(bench.db.system)).toBe(1);
  expect(await reconcilePower(bench.db.system)).toBe(0);
  await expect
    .poll(async () => (await bench.podNow(pod.id)).observedPower, { timeout: 60_000, interval: 10 })
    .toBe("running");

  await bench.db.system.execute(
    sql`UPDATE cloud_pods SET observed_power = 'stopped', observed_at = now() WHERE id = ${pod.id}`,
  );
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET finished_at = now() - interval '10 minutes' WHERE pod_id = ${pod.id} AND finished_at IS NOT NULL`,
  );
  await bench.db.system.execute(sql`
    INSERT INTO cloud_pod_holds (id, tenant_id, pod_id, kind, effect, actor) VALUES (${newId()}, ${bench.tenantId}, ${pod.id}, 'abuse', 'stop', 'test')`);
  expect(await reconcilePower(bench.db.system)).toBe(0);
});

test("a pod whose start has just failed is left alone also by who has seen it before", async () => {
  const pod = await bench.activePod();
  await bench.db.system.execute(
    sql`UPDATE cloud_pods SET observed_power = 'stopped', observed_at = now() WHERE id = ${pod.id}`,
  );
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET finished_at = now() - interval '10 minutes' WHERE pod_id = ${pod.id}`,
  );
  bench.script = failing("ensurePower", "START_FAILED");
  const starts = () =>
    bench.db.system.query<{ state: string }>(
      sql`SELECT state FROM cloud_pod_provisioning_tasks WHERE pod_id = ${pod.id} AND type = 'start'`,
    );
  const late = standingStill(bench.db.system, 1, async () => {
    expect(await reconcilePower(bench.db.system)).toBe(1);
    await expect.poll(starts, { timeout: 60_000, interval: 10 }).toEqual([{ state: "failed" }]);
  });
  expect(await reconcilePower(late)).toBe(0);
  expect(await starts()).toHaveLength(1);
});
