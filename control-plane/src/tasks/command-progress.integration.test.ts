import { newId } from "@cloudpods/shared/ids";
import { afterEach, beforeEach, expect, test } from "vitest";
import { makeTenant } from "../../../test/support/people.ts";
import { insertFleet } from "../../../test/support/placement-fleet.ts";
import { makePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { insertCommand } from "../nodes/send-command.ts";
import { sql } from "../platform/sql.ts";
import { cancelTask } from "./change-task.ts";
import { createTask } from "./create-task.ts";
import { readTaskEvents, recordCommandProgress } from "./task-events.ts";

let db: TestDatabase;
beforeEach(async () => {
  db = await createTestDatabase();
});
afterEach(() => db.close());

/** A task that waits at 10 % for a command, whose next step begins at 45 %. */
async function waiting() {
  const tenantId = await makeTenant(db);
  const pod = await makePod(db, tenantId, { hostname: "shop" });
  const [nodeId = ""] = await insertFleet(db.system, { nodes: 1, cores: 4, memoryMb: 8_192, diskGb: 100 });
  const taskId = newId();
  const commandId = await insertCommand(db.system, {
    nodeId,
    tenantId,
    podId: pod.id,
    vmid: pod.vmid,
    taskId,
    generation: 1n,
    revision: 1n,
    op: { $case: "inspect", value: { awaitAddressMs: 0, beforeRestore: undefined } },
  });
  await createTask(db.system, {
    id: taskId,
    tenantId,
    podId: pod.id,
    type: "create",
    step: "create",
    commandId,
    percent: 10,
    percentTo: 45,
    input: {},
    deadlineMs: 60_000,
    requestedBy: "user:x",
    requestId: "r",
    message: "Creating",
  });
  const told = async (percent: number, detail = "clone") => {
    await recordCommandProgress(db.system, { commandId, step: "create", percent, detail });
    const [task] = await db.system.query<{ percent: number }>(
      sql`SELECT percent FROM cloud_pod_provisioning_tasks WHERE id = ${taskId}`,
    );
    const last = (await readTaskEvents(db.system, { tenantId, taskId }, 0)).at(-1);
    expect(last?.percent).toBe(task?.percent);
    return last;
  };
  return { tenantId, podId: pod.id, taskId, commandId, told };
}

test("a task goes on with its command, and never back", async () => {
  const { taskId, told } = await waiting();
  expect((await told(0))?.percent).toBe(10);
  expect(await told(50, "resize")).toMatchObject({ percent: 27, message: "resize" });
  expect((await told(20))?.percent).toBe(27);
  expect((await told(100))?.percent).toBe(45);
  await db.system.execute(sql`UPDATE cloud_pod_provisioning_tasks SET percent_to = 100 WHERE id = ${taskId}`);
  // The end is told by the result alone.
  expect((await told(100))?.percent).toBe(99);
  await db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET state = 'compensating', percent = 27 WHERE id = ${taskId}`,
  );
  expect((await told(80))?.percent).toBe(27);
});

test("how a host calls its programs is no news for customers", async () => {
  const { told } = await waiting();
  const call = "INFO: starting new backup job: vzdump 100000 --storage nfs --notes-template 0190-secret";
  expect(await told(0, call)).toMatchObject({ message: "create" });
  expect(await told(0, "INFO: archive file size: 512MB")).toMatchObject({ message: "INFO: archive file size: 512MB" });
});

test("who cancels work that its host has begun waits for the worker that has the pod, and the worker not for him", async () => {
  const { tenantId, podId, taskId, commandId } = await waiting();
  await db.system.execute(sql`UPDATE node_commands SET state = 'sent', sent_at = now() WHERE id = ${commandId}`);
  const hasPod = Promise.withResolvers<void>();
  const once = { retriesMax: 0 };
  const working = db.system.transaction(async (tx) => {
    await tx.query(sql`SELECT FROM cloud_pods WHERE id = ${podId} FOR UPDATE`);
    hasPod.resolve();
    await until("the one who cancels waits", async () => {
      const blocked = await db.system.query(sql`
        SELECT FROM pg_stat_activity WHERE datname = current_database() AND usename = 'cloudpods_api' AND cardinality(pg_blocking_pids(pid)) > 0`);
      return blocked.length > 0;
    });
    await tx.query(sql`SELECT FROM cloud_pod_provisioning_tasks WHERE id = ${taskId} FOR UPDATE`);
  }, once);
  await hasPod.promise;
  const cancelling = db.api.transaction((tx) => cancelTask(tx, tenantId, taskId), { tenantId, ...once });
  // Neither ends as a deadlock.
  const [, { nodeId }] = await Promise.all([working, cancelling]);
  expect(nodeId).toBeDefined();
});
