import { type ContainerObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { smallInventory } from "../../../test/support/connected-agent.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { makeApiToken, makePerson, send, type Person } from "../../../test/support/people.ts";
import { buildWholeTestApp, type WholeTestApp } from "../../../test/support/whole-app.ts";
import { recordInventory } from "../nodes/record-inventory.ts";
import { sql } from "../platform/sql.ts";
import { recordAddress } from "../pods/addresses.ts";
import type { Pod } from "../pods/pod.ts";
import { reconcileNodes } from "./reconcile-nodes.ts";

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
});

interface Shown {
  readonly id: string;
  readonly vmid: number;
  readonly kind: string;
  readonly offered: readonly string[];
  readonly state: string;
}

/** Hosts tell what they have, and everything is compared, until a host shows such a finding. */
async function found(node: BenchNode, kind: string, hosts: readonly BenchNode[] = [node]): Promise<Shown> {
  let seen: Shown | undefined;
  await expect
    .poll(
      async () => {
        for (const host of hosts) await tell(host);
        const log = pino({ level: "silent" });
        await reconcileNodes({ db: bench.db.system, log, graceMs: 3_600_000, onCommand: () => {} });
        seen = (await list(node)).find((one) => one.kind === kind);
        return seen !== undefined;
      },
      { timeout: 60_000, interval: 20 },
    )
    .toBe(true);
  return seen ?? noHost();
}

async function tell(node: BenchNode): Promise<void> {
  const containers = [...(bench.hosts.containers.get(node.id)?.values() ?? [])];
  const session = { nodeId: node.id, epoch: 1n };
  await recordInventory(bench.db.system, session, smallInventory({ containers }), { onAddress: recordAddress });
}

async function list(node: BenchNode, state = "open"): Promise<Shown[]> {
  const answer = await ask(operator.headers, "GET", `/api/nodes/findings?node=${node.name}&state=${state}&limit=200`);
  return (JSON.parse(answer.text) as { data: Shown[] }).data;
}

function ask(headers: Person["headers"], method: string, path: string, body?: unknown) {
  return send(app.app, method, path, { headers, body });
}

function decide({ id }: { readonly id: string }, action: string, who: Person["headers"] = operator.headers) {
  return ask(who, "POST", `/api/nodes/findings/${id}/resolve`, { action, reason: "decided in a test" });
}

/** A container of nobody on a host. */
function byHand(node: BenchNode, changes: Partial<ContainerObservation> = {}): ContainerObservation {
  const vmid = 500 + (bench.hosts.containers.get(node.id)?.size ?? 0);
  const container = bench.hosts.put(node.id, {
    vmid,
    unprivileged: true,
    cores: 1,
    memoryMb: 1_024,
    swapMb: 512,
    diskGb: 8,
    hostname: "legacy",
    storage: "local-lvm",
    mac: `BC:24:11:99:00:${String(10 + vmid - 500)}`,
    network: {
      bridge: "vmbr0",
      mac: `BC:24:11:99:00:${String(10 + vmid - 500)}`,
      ip: "10.1.2.3/24",
      gateway: "10.1.2.1",
      rateLimitKibPerSecond: 0,
      firewall: false,
      vlanTag: 0,
      ipFilter: false,
    },
    ...changes,
  });
  return container;
}

/** A move in vain: the source lost the container, and the target has the copy that was made of it. */
async function lostAndCopied(): Promise<{ from: BenchNode; to: BenchNode; pod: Pod }> {
  const [from = noHost(), to = noHost()] = await bench.nodes(2, { cluster: true });
  const pod = await bench.podOn(from);
  // A linked clone, which only an archive can take along.
  await bench.db.system.execute(
    sql`UPDATE storages SET type = 'lvmthin' WHERE node_id = ${from.id} AND holds_root_disks`,
  );
  bench.hosts.keepFailedCopyOn(to.id);
  const path = `/api/cloud-pods/admin/${pod.id}/migrate`;
  const { json } = await ask(operator.headers, "POST", path, { target: to.name, reason: "test" });
  expect((await bench.end((json as { task: { id: string } }).task.id)).state).toBe("failed");
  bench.hosts.script = () => undefined;
  expect(bench.hosts.copies(pod.vmid).here).toEqual([to.id]);
  return { from, to, pod };
}

describe("a copy that is all that is left of a pod", () => {
  test("becomes it when an operator accepts it, once and nowhere else", async () => {
    const { from, to, pod } = await lostAndCopied();
    const missing = await found(from, "missing", [from, to]);
    const copy = await found(to, "stale-copy", [from, to]);
    expect(copy).toMatchObject({ vmid: pod.vmid, offered: ["accept", "dismiss"] });
    for (const action of ["remove", "repair"])
      expect(await decide(copy, action)).toMatchObject({ status: 409, json: { error: "REMEDY_NOT_OFFERED" } });
    expect(await decide(missing, "accept")).toMatchObject({ status: 409, json: { error: "REMEDY_NOT_OFFERED" } });
    const { status, json } = await decide(copy, "accept");
    expect([status, json["action"], typeof json["taskId"]]).toEqual([200, "accept", "string"]);
    expect(await bench.end(String(json["taskId"]))).toEqual({ state: "succeeded", errorCode: null });
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: to.id, status: "active", containerMissingSince: null });
    expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [to.id], running: [to.id] });
    // It is decided: the same again finds nothing to decide about, and both findings end with the next look.
    expect(await decide(copy, "accept")).toMatchObject({ status: 409, json: { error: "FINDING_OUTDATED" } });
    await expect
      .poll(
        async () => {
          for (const host of [from, to]) await tell(host);
          const log = pino({ level: "silent" });
          await reconcileNodes({ db: bench.db.system, log, graceMs: 3_600_000, onCommand: () => {} });
          return [...(await list(from)), ...(await list(to))];
        },
        { timeout: 60_000, interval: 20 },
      )
      .toEqual([]);
    expect(await decide(copy, "dismiss")).toMatchObject({ status: 409, json: { error: "FINDING_OVER" } });
  });

  test("is not accepted any more once its own host shows the pod again", async () => {
    const { from, to, pod } = await lostAndCopied();
    const copy = await found(to, "stale-copy", [from, to]);
    const container = bench.hosts.at(to.id, pod.vmid) ?? noHost();
    bench.hosts.put(from.id, { ...container, generation: 1n });
    await tell(from);
    const missing = sql`UPDATE cloud_pods SET container_missing_since = NULL WHERE id = ${pod.id}`;
    await bench.db.system.execute(missing);
    expect(await decide(copy, "accept")).toMatchObject({ status: 409 });
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: from.id, generation: 1n });
    bench.hosts.containers.get(from.id)?.delete(pod.vmid);
  });
});

describe("a container of nobody", () => {
  test("can be dismissed, and adopted for whom an operator says, who alone has it then", async () => {
    const [node = noHost()] = await bench.nodes(1);
    const container = byHand(node);
    const { vmid } = container;
    const finding = await found(node, "unmanaged");
    expect(await decide(finding, "dismiss")).toMatchObject({ status: 200, json: { state: "dismissed" } });
    expect(await list(node)).toEqual([]);
    expect(await list(node, "dismissed")).toMatchObject([{ id: finding.id, vmid }]);
    // Adopting is a route of its own; it stands open for what was dismissed.
    expect(await decide(finding, "adopt")).toMatchObject({ status: 422 });
    const body = { node: node.name, vmid, tenantId: bench.tenantId };
    const adopted = await ask(operator.headers, "POST", "/api/cloud-pods/admin/adopt", body);
    expect(adopted).toMatchObject({ status: 202, json: { task: { type: "adopt" } } });
    const { pod, task } = JSON.parse(adopted.text) as { pod: { id: string }; task: { id: string } };
    expect(await bench.end(task.id)).toEqual({ state: "succeeded", errorCode: null });
    expect(await ask(operator.headers, "POST", "/api/cloud-pods/admin/adopt", body)).toMatchObject({
      status: 409,
      json: { error: "VMID_CONFLICT" },
    });
    const owner = await makePerson(bench.db, app.app, { tenants: { [bench.tenantId]: "owner" } });
    const { id: other } = await otherTenant();
    const stranger = await makePerson(bench.db, app.app, { tenants: { [other]: "owner" } });
    expect(await ask(owner.headers, "GET", `/api/cloud-pods/${vmid}`)).toMatchObject({ json: { id: pod.id } });
    for (const reference of [vmid, pod.id])
      expect((await ask(stranger.headers, "GET", `/api/cloud-pods/${reference}`)).status).toBe(404);
  });

  test("and every finding are none of customers' business", async () => {
    const [node = noHost()] = await bench.nodes(1);
    const { vmid } = byHand(node);
    const finding = await found(node, "unmanaged");
    const owner = await makePerson(bench.db, app.app, { tenants: { [bench.tenantId]: "owner" } });
    const scopes = ["READ", "WRITE", "ADMIN", "PROVISIONING"] as const;
    const token = await makeApiToken(app.app, owner, { scopes, tenantId: bench.tenantId });
    const body = { node: node.name, vmid, tenantId: bench.tenantId };
    for (const [headers, status] of [
      [owner.headers, 403],
      [token.headers, 403],
      [{}, 401],
    ] as const) {
      expect((await ask(headers, "GET", "/api/nodes/findings")).status).toBe(status);
      expect((await decide(finding, "dismiss", headers)).status).toBe(status);
      expect((await ask(headers, "POST", "/api/cloud-pods/admin/adopt", body)).status).toBe(status);
    }
    expect(await list(node)).toMatchObject([{ id: finding.id, state: "open" }]);
    const unknown = { status: 404, json: { error: "FINDING_NOT_FOUND" } };
    expect(await decide({ id: newId() }, "dismiss")).toMatchObject(unknown);
    const path = `/api/nodes/findings/${finding.id}/resolve`;
    for (const wrong of [{ action: "dismiss" }, { action: "explode", reason: "x" }, { action: "dismiss", reason: "" }])
      expect((await ask(operator.headers, "POST", path, wrong)).status).toBe(422);
    const away = sql`UPDATE node_status SET state = 'offline', session_connected = false WHERE node_id = ${node.id}`;
    await bench.db.system.execute(away);
    expect(await ask(operator.headers, "POST", "/api/cloud-pods/admin/adopt", body)).toMatchObject({
      json: { error: "NODE_NOT_ONLINE" },
    });
  });
});

async function otherTenant(): Promise<{ id: string }> {
  const [row] = await bench.db.system.query<{ id: string }>(
    sql`INSERT INTO tenants (id, slug, name) VALUES (${newId()}, ${`other-${newId()}`}, 'Other') RETURNING id`,
  );
  return row ?? noHost();
}

function noHost(): never {
  throw new Error("no host");
}
