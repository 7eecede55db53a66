import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { aTenant, anOnlineNode } from "../../../test/support/rows.ts";
import { startScriptedHost, type ScriptedEnd, type ScriptedHost } from "../../../test/support/scripted-host.ts";
import { expectBooksBalanced, finishWork, workAndDie } from "../../../test/support/worker-kills.ts";
import type { Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { sql } from "../platform/sql.ts";
import { createFleetView } from "../scheduling/fleet-view.ts";
import { systemActor } from "../security/actor.ts";
import { orderPod } from "./order-pod.ts";

const fleet = createFleetView();

let db: TestDatabase;
let tenantId: string;
let host: ScriptedHost | undefined;
beforeAll(async () => {
  db = await createTestDatabase();
  tenantId = (await aTenant(db.system)).id;
  await anOnlineNode(db.system);
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

async function statusOf(podId: string): Promise<string | undefined> {
  const [row] = await db.system.query<{ status: string }>(sql`SELECT status FROM cloud_pods WHERE id = ${podId}`);
  return row?.status;
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
    const where = await workAndDie(db, podId, nth);
    if (where === undefined) return died;
    died.push(where);
    await finishWork(db, fleet, podId);
    await check(podId, vmid);
    await expectBooksBalanced(db);
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
}, 600_000);

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
}, 600_000);
