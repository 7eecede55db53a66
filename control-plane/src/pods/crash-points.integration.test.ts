import { spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { aTenant, anOnlineNode } from "../../../test/support/rows.ts";
import { startScriptedHost, type ScriptedEnd, type ScriptedHost } from "../../../test/support/scripted-host.ts";
import type { Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { sql } from "../platform/sql.ts";
import { createFleetView } from "../scheduling/fleet-view.ts";
import { systemActor } from "../security/actor.ts";
import { startTaskWorker } from "../tasks/task-worker.ts";
import { destroyPodNow } from "./destroy-pod.ts";
import { orderPod } from "./order-pod.ts";
import { podSagas } from "./pod-sagas.ts";

const program = join(import.meta.dirname, "../../../test/support/killed-worker.ts");
const fleet = createFleetView();

let db: TestDatabase;
let tenantId: string;
let host: ScriptedHost | undefined;
let nodeId: string;
beforeAll(async () => {
  db = await createTestDatabase();
  tenantId = (await aTenant(db.system)).id;
  nodeId = (await anOnlineNode(db.system)).id;
});
afterAll(() => db.close());
beforeEach(() => {
  host = undefined;
});
afterEach(() => host?.stop());

async function order(hostname: string): Promise<{ podId: string; vmid: number }> {
  const who = {
    tenantId,
    actor: systemActor("test"),
    requestId: newId(),
    defaultRegion: "local",
    fleet,
    isEmailVerified: () => Promise.resolve(true),
  };
  const { pod } = await db.api.transaction((tx) => orderPod(tx, who, { planCode: "STARTER", hostname }), { tenantId });
  return { podId: pod.id, vmid: pod.vmid };
}

/** Runs a worker that dies at its n-th boundary; undefined when the work ended before it got there. */
async function workAndDie(nth: number, isDone: () => Promise<boolean>): Promise<string | undefined> {
  const child = spawn(process.execPath, [program, db.systemUrl, String(nth)], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  for (const deadline = Date.now() + 30_000; child.exitCode === null && child.signalCode === null; await sleep(10)) {
    if (await isDone()) child.kill("SIGKILL");
    if (Date.now() > deadline) throw new Error(`the worker neither died at boundary ${nth} nor finished`);
  }
  await ended;
  return said === "" ? undefined : said.trim();
}

async function finishWork(podId: string): Promise<void> {
  const worker = startTaskWorker({
    db: db.system,
    workerId: `survivor-${newId()}`,
    sagas: podSagas(fleet),
    log: pino({ level: "silent" }),
    onCommitted: () => {},
    pollMs: 20,
  });
  try {
    await expect.poll(() => isIdle(podId), { timeout: 20_000, interval: 10 }).toBe(true);
  } finally {
    await worker.stop();
  }
}

async function isIdle(podId: string): Promise<boolean> {
  const open = await db.system.query(sql`
    SELECT FROM cloud_pod_provisioning_tasks WHERE pod_id = ${podId} AND state NOT IN ('succeeded', 'failed', 'cancelled')`);
  return open.length === 0;
}

async function books(): Promise<{
  pods: bigint;
  claimed: bigint;
  allocatedMb: bigint;
  claimedMb: bigint;
  usedPods: bigint;
  counted: bigint;
}> {
  const [row] = await db.system.query<Awaited<ReturnType<typeof books>>>(sql`
    SELECT (SELECT count(*) FROM cloud_pods WHERE node_id IS NOT NULL) AS pods, (SELECT count(*) FROM node_claims) AS claimed,
      (SELECT sum(memory_allocated_mb) FROM node_capacity) AS "allocatedMb", (SELECT coalesce(sum(memory_mb), 0) FROM node_claims) AS "claimedMb",
      (SELECT sum(used_cloud_pods) FROM cloud_pod_quotas) AS "usedPods",
      (SELECT count(*) FROM cloud_pods WHERE status IN ('provisioning', 'active')) AS counted`);
  if (row === undefined) throw new Error("no row");
  return row;
}

async function statusOf(podId: string): Promise<string | undefined> {
  const [row] = await db.system.query<{ status: string }>(sql`SELECT status FROM cloud_pods WHERE id = ${podId}`);
  return row?.status;
}

function expectBalanced(found: Awaited<ReturnType<typeof books>>): void {
  expect(found.claimed).toBe(found.pods);
  expect(found.allocatedMb).toBe(found.claimedMb);
  expect(found.usedPods).toBe(found.counted);
}

/** Orders again and again, a worker dying one boundary later each time, until one gets through. */
async function dieEverywhere(
  prefix: string,
  script: ((command: Command) => ScriptedEnd | undefined) | undefined,
  check: (podId: string, vmid: number) => Promise<void>,
): Promise<string[]> {
  host = startScriptedHost(db.system, script);
  const died: string[] = [];
  for (let nth = 1; ; nth++) {
    const { podId, vmid } = await order(`${prefix}-${nth}`);
    const where = await workAndDie(nth, () => isIdle(podId));
    if (where === undefined) return died;
    died.push(where);
    await finishWork(podId);
    await check(podId, vmid);
    expectBalanced(await books());
  }
}

// A worker that dies between any two commits must leave work that another one carries to the very same end.
test("kill -9 of a worker at every boundary of an order ends in exactly one pod", async () => {
  const died = await dieEverywhere("order", undefined, async (podId, vmid) => {
    expect(await statusOf(podId)).toBe("active");
    expect(host?.made.get(vmid)).toBe(1);
    const [allocation] = await db.system.query<{ count: bigint }>(
      sql`SELECT count(*) FROM cloud_pod_allocations WHERE pod_id = ${podId}`,
    );
    expect(allocation?.count).toBe(1n);
  });
  for (const step of ["create", "configure", "start", "wait-for-address", "activate"]) {
    for (const boundary of ["stepped", "committed"]) expect(died).toContain(`${boundary} create ${step}`);
  }
  expect(died).toContain("claimed create create");
}, 170_000);

test("kill -9 of a worker at every boundary of an order that fails ends in nothing at all", async () => {
  const fail = (command: Command): ScriptedEnd | undefined =>
    command.op?.$case === "ensurePower" ? { state: "failed", errorCode: "START_FAILED", retryable: false } : undefined;
  const died = await dieEverywhere("failing", fail, async (podId, vmid) => {
    expect(await statusOf(podId)).toBe("failed");
    expect(host?.containers.has(vmid)).toBe(false);
    const claims = await db.system.query(sql`SELECT FROM node_claims WHERE pod_id = ${podId}`);
    expect(claims).toEqual([]);
  });
  for (const step of ["undo-create", "undo-release"]) expect(died).toContain(`committed create ${step}`);
}, 170_000);

test("a destroy during an order wins, and nothing is left", async () => {
  host = startScriptedHost(db.system);
  const { podId, vmid } = await order("short-lived");
  const who = { tenantId, actor: systemActor("test"), requestId: newId() };
  await db.api.transaction((tx) => destroyPodNow(tx, who, podId, new Date()), { tenantId });
  await finishWork(podId);
  expect(await statusOf(podId)).toBe("deleted");
  expect(host.containers.has(vmid)).toBe(false);
  expectBalanced(await books());
});

test("64 orders at once at one below the limit grant exactly one", async () => {
  const { id } = await aTenant(db.system, { pods: 1 });
  const who = {
    tenantId: id,
    actor: systemActor("test"),
    defaultRegion: "local",
    fleet,
    isEmailVerified: () => Promise.resolve(true),
  };
  const results = await Promise.allSettled(
    Array.from({ length: 64 }, (_, index) =>
      db.api.transaction(
        (tx) => orderPod(tx, { ...who, requestId: newId() }, { planCode: "STARTER", hostname: `race-${index}` }),
        { tenantId: id },
      ),
    ),
  );
  const granted = results.filter(({ status }) => status === "fulfilled");
  expect(granted).toHaveLength(1);
  const codes = new Set(
    results.map((result) =>
      result.status === "rejected" && result.reason instanceof Error && "code" in result.reason
        ? result.reason.code
        : "granted",
    ),
  );
  expect(codes).toEqual(new Set(["granted", "QUOTA_EXCEEDED"]));
  const pods = await db.system.query(sql`SELECT FROM cloud_pods WHERE tenant_id = ${id}`);
  expect(pods).toHaveLength(1);
  expect(nodeId).not.toBe("");
});
