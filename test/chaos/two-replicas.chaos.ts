import { readFile } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { ask, metered, order, succeeded } from "../support/customer.ts";
import { consumption, workingLoad } from "../support/metered-truth.ts";
import { createTestDatabase, type TestDatabase } from "../support/postgres.ts";
import { type Stack, startStack, untilOnline } from "../support/stack.ts";
import type { Replica } from "../support/stack-replica.ts";
import { until } from "../support/until.ts";

let database: TestDatabase;
let stack: Stack;
let one: Replica;
let two: Replica;
beforeAll(async () => {
  database = await createTestDatabase();
  stack = await startStack({ logins: database, hosts: ["pve1", "pve2"], replicas: 2 });
  [one, two] = [stack.replicas[0], stack.replicas[1] ?? stack.replicas[0]];
  await two.start();
});
afterAll(async () => {
  await stack.finish();
  await database.close();
});

/** Which replicas hold sessions of hosts, as their last lives noted it: one that was killed notes nothing. */
async function sessionHolders(): Promise<string[]> {
  const rows = await stack.db.query<{ replica: string }>(
    sql`SELECT DISTINCT session_replica::text AS replica FROM node_status WHERE session_connected`,
  );
  return rows.map(({ replica }) => replica);
}

/** Waits until all hosts have found their way to a replica. */
async function untilAllAt(replica: Replica): Promise<void> {
  const id = await idOf(replica);
  await until(`all hosts at ${replica.name}`, async () => isDeepStrictEqual(await sessionHolders(), [id]));
}

/** Moves the agent to where the front sends it now, and waits until it is there: its host counts as online meanwhile. */
async function redial(name: string): Promise<void> {
  const before = await sessionsOf(name);
  await stack.host(name).killAgent();
  await stack.host(name).startAgent();
  await until(`a session of ${name}`, async () => (await sessionsOf(name)) > before);
}

/** How many sessions a host has begun. */
async function sessionsOf(name: string): Promise<bigint> {
  const [row] = await stack.db.query<{ count: bigint }>(
    sql`SELECT s.session_epoch AS count FROM node_status s JOIN nodes n ON n.id = s.node_id WHERE n.name = ${name}`,
  );
  return row?.count ?? 0n;
}

test("both replicas serve one fleet: each commands the other's hosts", async () => {
  await until("sessions at both replicas", async () => {
    if ((await sessionHolders()).length === 2) return true;
    await redial("pve2");
    await untilOnline(stack.admin(), stack.hosts);
    return (await sessionHolders()).length === 2;
  });
  const orders = [one, two].flatMap((replica) =>
    ["pve1", "pve2"].map(async (host) => {
      const api = stack.customer(replica);
      const pod = await succeeded(api, await order(api, `${replica.name}-${host}`, host));
      expect(pod).toMatchObject({ status: "active", power: "running", node: host });
      await metered(stack.customer(replica === one ? two : one), pod);
    }),
  );
  await Promise.all(orders);
});

test("a replica that dies in the middle of orders is not missed", async () => {
  const api = stack.customer(one);
  const accepted = await Promise.all(
    [stack.customer(two), api].flatMap((via, index) =>
      ["pve1", "pve2"].map((host) => order(via, `death-${index}-${host}`, host)),
    ),
  );
  await two.kill();
  const pods = await Promise.all(accepted.map((each) => succeeded(api, each)));
  expect(pods.map(({ status, power }) => ({ status, power }))).toEqual(
    pods.map(() => ({ status: "active", power: "running" })),
  );
  await untilAllAt(one);
  await Promise.all(pods.map((pod) => metered(api, pod)));
  await two.start();
});

test("without the replica that runs the broker the other one goes on, and no usage is lost", async () => {
  const api = stack.customer(two);
  const pod = await succeeded(api, await order(api, "broker-1", "pve1"));
  const host = stack.host("pve1");
  await host.simulated.setLoad(pod.vmid, workingLoad);
  await one.kill();
  await untilAllAt(two);
  const scaled = await succeeded(api, await ask(api, pod, "scale", { planCode: "CLOUD_POD_PREMIUM" }));
  expect(scaled).toMatchObject({ cores: 2, status: "active" });
  await one.start();
  const { stored, truth } = await consumption(stack.db, host, pod);
  expect(stored).toEqual(truth);
});

test("a replica that is asked to end hands back what it holds", async () => {
  const api = stack.customer(one);
  const accepted = await Promise.all(["pve1", "pve2"].map((host) => order(stack.customer(two), `grace-${host}`, host)));
  const startedMs = performance.now();
  expect(await two.terminate()).toBe(0);
  // As long as its unit's TimeoutStopSec.
  expect(performance.now() - startedMs).toBeLessThan(60_000);
  await Promise.all(accepted.map((each) => succeeded(api, each)));
  const [left] = await stack.db.query<{ rows: bigint; leases: bigint }>(sql`
    SELECT (SELECT count(*) FROM control_plane_replicas WHERE id = ${await idOf(two)}) AS rows,
      (SELECT count(*) FROM cloud_pod_provisioning_tasks WHERE lease_until IS NOT NULL) AS leases`);
  expect(left).toEqual({ rows: 0n, leases: 0n });
  expect(await readFile(two.logPath, "utf8")).not.toContain("does not stop; going on");
});

/** The id of a replica's last life, as it said at its start. */
async function idOf(replica: Replica): Promise<string> {
  const id = (await readFile(replica.logPath, "utf8")).match(/"replicaId":"([0-9a-f-]{36})"(?!.*"replicaId")/su)?.[1];
  if (id === undefined) throw new Error(`${replica.name} never said who it is`);
  return id;
}
