import { Power, type Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { smallInventory } from "../../../test/support/connected-agent.ts";
import { comeBack, vanish } from "../../../test/support/lost-hosts.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { makePerson, send, type Person } from "../../../test/support/people.ts";
import { buildWholeTestApp, type WholeTestApp } from "../../../test/support/whole-app.ts";
import { recordInventory } from "../nodes/record-inventory.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { recordAddress } from "../pods/addresses.ts";
import { suspendPod } from "../pods/change-power.ts";
import type { Pod } from "../pods/pod.ts";
import { reconcileNodes } from "../reconciling/reconcile-nodes.ts";
import { releaseClaim } from "../scheduling/change-claim.ts";
import { systemActor } from "../security/actor.ts";
import { driveDrains } from "./drive-drains.ts";

/*
 * A host is given up, a pod of which there is no backup is marked lost, and then the host comes back with its container.
 */
const bench = new MoveWorkbench();
let app: WholeTestApp;
let operator: Person;
beforeAll(async () => {
  app = await buildWholeTestApp(bench.db);
  operator = await makePerson(bench.db, app.app, { platformRole: "OPERATOR" });
});
afterAll(() => app.close());
beforeEach(() => {
  bench.work();
  bench.hosts.script = markAnew;
});

/** As agents do: a change of power writes the generation into the mark. */
function markAnew({ op, nodeId, vmid, generation }: Command & { readonly nodeId: string }): undefined {
  const container = bench.hosts.at(nodeId, vmid);
  if (op?.$case === "ensurePower" && container !== undefined)
    bench.hosts.containers.get(nodeId)?.set(vmid, { ...container, generation });
}

function ask(method: string, path: string, body?: unknown) {
  return send(app.app, method, path, { headers: operator.headers, body });
}

interface Shown {
  readonly id: string;
  readonly vmid: number;
  readonly kind: string;
  readonly offered: readonly string[];
  readonly evidence: Readonly<Record<string, unknown>>;
}

function decide(finding: Shown | undefined, action: string) {
  return ask("POST", `/api/nodes/findings/${finding?.id}/resolve`, { action, reason: "it is back" });
}

async function tell(node: BenchNode): Promise<void> {
  const containers = [...(bench.hosts.containers.get(node.id)?.values() ?? [])];
  const session = { nodeId: node.id, epoch: 1n };
  await recordInventory(bench.db.system, session, smallInventory({ containers }), { onAddress: recordAddress });
}

/** What a host that tells what it has shows of an id, once nobody works on its pod any more. */
async function findingOf(node: BenchNode, vmid: number): Promise<Shown | undefined> {
  await tell(node);
  const log = pino({ level: "silent" });
  await reconcileNodes({ db: bench.db.system, log, graceMs: 3_600_000, onCommand: () => {} });
  const { json } = await ask("GET", `/api/nodes/findings?node=${node.name}&limit=200`);
  return (json["data"] as Shown[]).find((one) => one.vmid === vmid);
}

async function found(node: BenchNode, vmid: number): Promise<Shown> {
  let seen: Shown | undefined;
  const look = async () => (seen = await findingOf(node, vmid));
  await expect.poll(look, { timeout: 40_000, interval: 20 }).toBeDefined();
  return seen ?? noHost();
}

/** The host is gone and is given up with what is on it. */
async function giveUp(node: BenchNode): Promise<void> {
  await vanish(bench, node);
  const order = { reason: "it burnt", confirmFenced: true, onNoBackup: "mark-lost" };
  expect((await ask("POST", `/api/nodes/${node.name}/evacuate`, order)).status).toBe(202);
  const drive = async () => {
    await driveDrains({ db: bench.db.system, fleet: bench.fleet, onQueued: () => {} });
    return (await ask("GET", `/api/nodes/${node.name}/drain`)).json;
  };
  await expect.poll(drive, { timeout: 40_000, interval: 20 }).toMatchObject({ state: "drained" });
}

/** A pod that was marked lost, and the host that is back with it. */
async function lostAndBack(power: "running" | "stopped" = "running"): Promise<{ node: BenchNode; pod: Pod }> {
  const [node = noHost()] = await bench.nodes(1);
  const pod = await bench.podOn(node, power);
  await giveUp(node);
  await comeBack(bench, node);
  return { node, pod };
}

async function booksOf(pod: Pod) {
  const { db } = bench;
  const [[used], [mine], allocations] = await Promise.all([
    db.system.query<{ pods: number; cores: number }>(
      sql`SELECT used_cloud_pods AS pods, used_cpu_cores AS cores FROM cloud_pod_quotas WHERE tenant_id = ${pod.tenantId}`,
    ),
    db.system.query(sql`SELECT status, node_id, generation, revision FROM cloud_pods WHERE id = ${pod.id}`),
    db.system.query<{ from: Date; to: Date | null; planCode: string }>(sql`
      SELECT lower(valid) AS from, upper(valid) AS to, plan_code AS "planCode" FROM cloud_pod_allocations WHERE pod_id = ${pod.id} ORDER BY lower(valid)`),
  ]);
  return { used, mine, allocations, ...(await bench.books(pod.id)) };
}

test("is its customer's again as it was, once, and is paid for from then on", async () => {
  const { node, pod } = await lostAndBack();
  expect(await bench.podNow(pod.id)).toMatchObject({ status: "failed", nodeId: null, lastErrorCode: "POD_LOST" });
  expect((await booksOf(pod)).used).toEqual({ pods: 0, cores: 0 });
  const finding = await found(node, pod.vmid);
  expect(finding).toMatchObject({
    kind: "orphan",
    offered: ["accept", "remove", "dismiss"],
    evidence: { givenUp: "with its host", power: "stopped" },
  });
  const asked = new Date();
  // Two operators at once: whoever is first has decided, and nobody decides otherwise after that.
  const answers = await Promise.all([decide(finding, "accept"), decide(finding, "accept")]);
  const outdated = { status: 409, json: { error: "FINDING_OUTDATED" } };
  expect(answers.toSorted((one, other) => one.status - other.status)).toMatchObject([{ status: 200 }, outdated]);
  expect(await decide(finding, "remove")).toMatchObject(outdated);
  const { taskId } = answers.find(({ status }) => status === 200)?.json ?? {};
  expect(await bench.end(String(taskId))).toEqual({ state: "succeeded", errorCode: null });
  const { id, tenantId, vmid, name, planCode, mac, hostname, subscriptionId } = pod;
  expect(await bench.podNow(pod.id)).toMatchObject({
    id,
    tenantId,
    vmid,
    name,
    planCode,
    mac,
    hostname,
    subscriptionId,
    status: "active",
    nodeId: node.id,
    generation: 2n,
    observedPower: "running",
    lastErrorCode: null,
  });
  expect(bench.hosts.at(node.id, pod.vmid)).toMatchObject({ power: Power.POWER_RUNNING, generation: 2n, written: 1 });
  const { used, claims, stays, allocations } = await booksOf(pod);
  expect(used).toEqual({ pods: 1, cores: pod.cores });
  expect(claims).toEqual([{ nodeId: node.id, generation: 2n, purpose: "home" }]);
  expect(stays).toEqual([
    { nodeId: node.id, open: false },
    { nodeId: node.id, open: true },
  ]);
  const [before, since] = allocations;
  expect(allocations).toMatchObject([{ planCode }, { planCode, to: null }]);
  expect(before?.to?.getTime()).toBeLessThan(asked.getTime());
  expect(since?.from.getTime()).toBeGreaterThanOrEqual(asked.getTime());
  const audit = await bench.db.system.query(
    sql`SELECT action FROM audit_log WHERE target_id = ${pod.id} AND action IN ('pod.lost', 'pod.taken-back') ORDER BY id`,
  );
  expect(audit).toEqual([{ action: "pod.lost" }, { action: "pod.taken-back" }]);
  const { json } = await ask("GET", `/api/nodes/${node.name}/events?limit=3`);
  expect(JSON.stringify(json)).toContain("POD_TAKEN_BACK");
  await expect.poll(() => findingOf(node, pod.vmid), { timeout: 40_000, interval: 20 }).toBeUndefined();
  expect(await decide(finding, "accept")).toMatchObject({ status: 409, json: { error: "FINDING_OVER" } });
});

test("is refused with the reason while something stands against it, and nothing is changed by that", async () => {
  const { node, pod } = await lostAndBack();
  const [elsewhere = noHost()] = await bench.nodes(1);
  const other = await bench.podOn(elsewhere);
  const finding = await found(node, pod.vmid);
  const address = { ip: "10.1.2.3/24", gateway: "", firewall: true, vlanTag: 0, nameserver: "", searchDomain: "" };
  const run = (statement: Sql) => bench.db.system.execute(statement);
  const quota = (most: number) =>
    sql`UPDATE cloud_pod_quotas SET source = 'tenant', max_cloud_pods = ${most} WHERE tenant_id = ${bench.tenantId}`;
  const max = (most: number | null) =>
    sql`UPDATE cloud_pod_plans SET max_per_tenant = ${most}::integer WHERE code = ${pod.planCode}`;
  const online = (state: string) => sql`UPDATE node_status SET state = ${state} WHERE node_id = ${node.id}`;
  const given = (change: Sql) =>
    sql`UPDATE cloud_pod_addresses SET ${change} WHERE pod_id = ${other.id} AND used_to IS NULL`;
  const obstacles: [string, number, Sql[], Sql[]][] = [
    ["NODE_NOT_ONLINE", 409, [online("offline")], [online("online")]],
    ["QUOTA_EXCEEDED", 403, [quota(1)], [quota(2)]],
    ["PLAN_LIMIT_REACHED", 403, [max(1)], [max(null)]],
    ["MAC_CONFLICT", 409, [given(sql`mac = ${pod.mac}`)], [given(sql`mac = ${other.mac}`)]],
    [
      "ADDRESS_CONFLICT",
      409,
      [
        sql`UPDATE cloud_pods SET adopted_network = ${JSON.stringify(address)} WHERE id = ${pod.id}`,
        given(sql`ip = '10.1.2.3'`),
      ],
      [given(sql`ip = '10.1.2.4'`)],
    ],
    [
      "RESTORE_IN_PROGRESS",
      503,
      [sql`UPDATE control_plane_epoch SET holds_orders = true`],
      [sql`UPDATE control_plane_epoch SET holds_orders = false`],
    ],
    [
      "COPY_ELSEWHERE",
      409,
      [
        sql`INSERT INTO node_findings (id, node_id, vmid, pod_id, kind, subject, evidence, offered, first_seen_at, last_seen_at, sightings)
          VALUES (${newId()}, ${elsewhere.id}, ${pod.vmid}, ${pod.id}, 'orphan', 'by hand', '{"generation":"1"}', '{dismiss}', now(), now(), 1)`,
      ],
      // A copy of an older place is no question.
      [sql`UPDATE node_findings SET evidence = '{"generation":"0"}' WHERE node_id = ${elsewhere.id}`],
    ],
  ];
  for (const [error, status, begin, end] of obstacles) {
    const before = await booksOf(pod);
    for (const statement of begin) await run(statement);
    expect(await decide(finding, "accept"), error).toMatchObject({ status, json: { error } });
    for (const statement of end) await run(statement);
    expect(await booksOf(pod), error).toEqual(before);
  }
  // Its room was held for it: that all else is promised to others does not matter.
  await run(sql`UPDATE node_capacity SET cpu_reserved = cpu_total WHERE node_id = ${node.id}`);
  const { status, json } = await decide(finding, "accept");
  await run(sql`UPDATE node_capacity SET cpu_reserved = 0 WHERE node_id = ${node.id}`);
  expect([status, json["error"]]).toEqual([200, undefined]);
  expect((await bench.end(String(json["taskId"]))).state).toBe("succeeded");
});

test("of a host that has joined anew needs room there", async () => {
  const { node, pod } = await lostAndBack();
  await bench.inSystem((tx) => releaseClaim(tx, pod.id, pod.generation));
  const finding = await found(node, pod.vmid);
  const reserve = (cores: Sql) =>
    bench.db.system.execute(sql`UPDATE node_capacity SET cpu_reserved = ${cores} WHERE node_id = ${node.id}`);
  await reserve(sql`cpu_total`);
  const before = await booksOf(pod);
  expect(await decide(finding, "accept")).toMatchObject({ status: 503, json: { error: "NO_CAPACITY" } });
  expect(await booksOf(pod)).toEqual(before);
  await reserve(sql`0`);
  const { json } = await decide(finding, "accept");
  expect((await bench.end(String(json["taskId"]))).state).toBe("succeeded");
  expect((await booksOf(pod)).claims).toEqual([{ nodeId: node.id, generation: 2n, purpose: "home" }]);
});

test("is what it was: stopped, or suspended without counting", async () => {
  const [node = noHost()] = await bench.nodes(1);
  const [stopped, suspended] = [await bench.podOn(node, "stopped"), await bench.podOn(node)];
  const who = { tenantId: bench.tenantId, actor: systemActor("test"), requestId: newId() };
  const { task } = await bench.inSystem((tx) => suspendPod(tx, who, suspended.id, "billing", "unpaid"));
  await bench.end(task.id);
  await giveUp(node);
  await comeBack(bench, node);
  for (const { id, vmid } of [stopped, suspended]) {
    // Somebody has started it meanwhile.
    bench.hosts.start(node.id, vmid);
    const { json } = await decide(await found(node, vmid), "accept");
    expect(await bench.end(String(json["taskId"]))).toEqual({ state: "succeeded", errorCode: null });
    expect(await bench.podNow(id)).toMatchObject({ nodeId: node.id, observedPower: "stopped" });
  }
  expect((await bench.podNow(stopped.id)).status).toBe("active");
  expect((await bench.podNow(suspended.id)).status).toBe("suspended");
  expect((await booksOf(stopped)).used).toEqual({ pods: 1, cores: stopped.cores });
});

test("is nothing that a container with another mark or id becomes, nor what its customer has given up", async () => {
  const { node, pod } = await lostAndBack();
  const whole = bench.hosts.at(node.id, pod.vmid) ?? noHost();
  bench.hosts.put(node.id, { ...whole, generation: 0n });
  expect((await found(node, pod.vmid)).offered).toEqual(["remove", "dismiss"]);
  bench.hosts.put(node.id, { ...whole, vmid: 4_711 });
  expect((await found(node, 4_711)).offered).toEqual(["dismiss"]);
  bench.hosts.containers.get(node.id)?.delete(4_711);
  bench.hosts.put(node.id, whole);
  const finding = await found(node, pod.vmid);
  expect(finding.offered).toContain("accept");
  const outdated = { status: 409, json: { error: "FINDING_OUTDATED" } };
  // Its customer has asked for the removal, in vain so far, and the finding is not renewed yet.
  const removalAsked = (at: Sql) =>
    bench.db.system.execute(sql`UPDATE cloud_pods SET deletion_requested_at = ${at} WHERE id = ${pod.id}`);
  await removalAsked(sql`now()`);
  expect(await decide(finding, "accept")).toMatchObject(outdated);
  await removalAsked(sql`NULL`);
  // Another pod's container stands there by now.
  bench.hosts.put(node.id, { ...whole, podId: newId() });
  await tell(node);
  expect(await decide(finding, "accept")).toMatchObject(outdated);
  // Another operator is having it removed.
  bench.hosts.put(node.id, whole);
  await tell(node);
  bench.hosts.away.add(node.id);
  expect((await decide(finding, "remove")).status).toBe(200);
  expect(await decide(finding, "accept")).toMatchObject(outdated);
  await bench.db.system.execute(
    sql`UPDATE node_commands SET state = 'failed', finished_at = now() WHERE pod_id = ${pod.id} AND finished_at IS NULL`,
  );
  expect((await found(node, pod.vmid)).offered).toContain("accept");
  await bench.destroy(pod);
  await expect.poll(async () => (await bench.podNow(pod.id)).status, { timeout: 40_000 }).toBe("deleted");
  await tell(node);
  expect(await decide(finding, "accept")).toMatchObject(outdated);
  expect((await bench.podNow(pod.id)).status).toBe("deleted");
});

function noHost(): never {
  throw new Error("no host");
}
