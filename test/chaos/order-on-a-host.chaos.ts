import { execFile } from "node:child_process";
import { mkdirSync } from "node:fs";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { newId } from "../../shared/src/ids.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { destroyPodNow } from "../../control-plane/src/pods/destroy-pod.ts";
import { orderPod } from "../../control-plane/src/pods/order-pod.ts";
import { createFleetView } from "../../control-plane/src/scheduling/fleet-view.ts";
import { systemActor } from "../../control-plane/src/security/actor.ts";
import { saveIdentity } from "../../node-agent/src/enrolment/identity-files.ts";
import type { FaultRule } from "../simulated-host/faults.ts";
import { type AgentOnHost, createAgentOnHost } from "../support/agent-process.ts";
import { enrolHost, issuingDeps } from "../support/enrolled-host.ts";
import { type GatewayUnderTest, startGatewayUnderTest } from "../support/gateway-under-test.ts";
import { type TestDatabase, createTestDatabase } from "../support/postgres.ts";
import { aTenant } from "../support/rows.ts";
import { until } from "../support/until.ts";
import { expectBooksBalanced, finishWork, workAndDie } from "../support/worker-kills.ts";

const fleet = createFleetView();
/** Every boundary takes an order on a host from beginning to end; the short form takes one in five of them. */
const stride = Number(process.env["CLOUDPODS_CHAOS_ROUNDS"] ?? 1) > 1 ? 1 : 5;
let db: TestDatabase;
let gateway: GatewayUnderTest;
let agent: AgentOnHost;
let tenantId: string;
let nodeId: string;

/** A simulated host with a real agent on a real gateway, as the tables want it for orders. */
beforeAll(async () => {
  db = await createTestDatabase();
  const deps = await issuingDeps(db.system);
  // These workers tell nobody that they have sent a command.
  gateway = await startGatewayUnderTest(db, deps, { pollMs: 50 });
  const identity = await enrolHost(db.system, deps);
  agent = await createAgentOnHost();
  nodeId = identity.nodeId;
  mkdirSync(agent.stateDir, { recursive: true, mode: 0o700 });
  const { keyPem, certificatePem, caPem } = identity;
  const addresses = { gatewayAddress: `127.0.0.1:${gateway.port}`, brokerUrl: "mqtts://127.0.0.1:1" };
  saveIdentity(agent.stateDir, {
    nodeId,
    serverUrl: "http://127.0.0.1:1",
    ...addresses,
    keyPem,
    certificatePem,
    caPem,
  });
  agent.start();
  await until(
    "the inventory",
    async () => {
      const found = await db.system.query(sql`
      SELECT FROM nodes WHERE id = ${nodeId} AND default_storage IS NOT NULL AND template_vmid IS NOT NULL`);
      return found.length > 0;
    },
    60_000,
  );
  tenantId = (await aTenant(db.system)).id;
}, 120_000);
afterAll(async () => {
  await agent.dispose();
  await gateway.stop();
  await db.close();
});

async function order(hostname: string): Promise<{ podId: string; vmid: number }> {
  // Heartbeats go through a broker, which is no part of this.
  await db.system.execute(
    sql`UPDATE node_status SET state = 'online', last_heartbeat_at = now() WHERE node_id = ${nodeId}`,
  );
  const who = { tenantId, actor: systemActor("test"), requestId: newId(), defaultRegion: "local", fleet };
  const ordering = { ...who, isEmailVerified: () => Promise.resolve(true) };
  const { pod } = await db.api.transaction((tx) => orderPod(tx, ordering, { planCode: "STARTER", hostname }), {
    tenantId,
  });
  return { podId: pod.id, vmid: pod.vmid };
}

/** The host has these containers beside its template, each with one volume, and no locks. */
async function expectOnHost(...vmids: number[]): Promise<void> {
  const views = await agent.host.containers();
  expect(views.map(({ vmid }) => vmid).filter((vmid) => vmid !== agent.host.templateVmid)).toEqual(vmids);
  expect(views.flatMap(({ config }) => config["lock"] ?? [])).toEqual([]);
  expect(await volumeOwners()).toEqual(vmids);
}

/** VMIDs of all volumes but the template's, one for each volume. */
async function volumeOwners(): Promise<number[]> {
  const lines: string[] = [];
  for (const storage of ["local", "local-lvm"]) {
    const { stdout } = await promisify(execFile)(agent.host.paths.pvesm, ["list", storage, "--content", "rootdir"]);
    lines.push(...stdout.split("\n").slice(1));
  }
  return lines
    .flatMap((line) => /\s(\d+)\s*$/u.exec(line)?.[1] ?? [])
    .map(Number)
    .filter((vmid) => vmid !== agent.host.templateVmid)
    .toSorted((a, b) => a - b);
}

/** Orders again and again, a worker dying some boundaries later each time, until one gets through. */
async function dieEverywhere(
  prefix: string,
  faults: FaultRule[],
  check: (podId: string, vmid: number) => Promise<void>,
): Promise<string[]> {
  agent.host.setFaults(faults);
  const died: string[] = [];
  for (let nth = 2; ; nth += stride) {
    const { podId, vmid } = await order(`${prefix}-${nth}`);
    const where = await workAndDie(db, podId, nth);
    await finishWork(db, fleet, podId);
    await check(podId, vmid);
    await expectBooksBalanced(db);
    if (where === undefined) return died;
    died.push(where);
  }
}

async function statusOf(podId: string): Promise<string | undefined> {
  const [row] = await db.system.query<{ status: string }>(sql`SELECT status FROM cloud_pods WHERE id = ${podId}`);
  return row?.status;
}

test("a worker that dies at any boundary of an order leaves one container with one volume on the host", async () => {
  const died = await dieEverywhere("order", [], async (podId, vmid) => {
    expect(await statusOf(podId)).toBe("active");
    await expectOnHost(vmid);
    const clones = (await agent.host.invocations()).filter(({ argv }) => argv[1] === "clone");
    expect(clones.filter(({ argv }) => argv.includes(String(vmid)))).toHaveLength(1);
    const who = { tenantId, actor: systemActor("test"), requestId: newId() };
    await db.api.transaction((tx) => destroyPodNow(tx, who, podId, new Date()), { tenantId });
    await finishWork(db, fleet, podId);
    await expectOnHost();
  });
  expect(died.length).toBeGreaterThan(2);
}, 1_200_000);

test("one of an order that fails leaves nothing on the host", async () => {
  const stderr = "startup for container '1' failed";
  const faults: FaultRule[] = [{ match: { command: "start" }, effect: { kind: "exit", code: 255, stderr } }];
  const died = await dieEverywhere("failing", faults, async (podId) => {
    expect(await statusOf(podId)).toBe("failed");
    await expectOnHost();
  });
  // How often the work is claimed while it waits depends on the host, so which boundaries were met does too.
  expect(died.some((where) => where.includes(" undo-"))).toBe(true);
}, 1_200_000);
