import { ContainerObservation, Power, type Inventory } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { smallInventory } from "../../../test/support/connected-agent.ts";
import { makePerson, send, type Person } from "../../../test/support/people.ts";
import { failing, PodWorkbench } from "../../../test/support/pod-workbench.ts";
import { buildWholeTestApp, type WholeTestApp } from "../../../test/support/whole-app.ts";
import { recordInventory } from "../nodes/record-inventory.ts";
import { sql } from "../platform/sql.ts";
import { recordAddress } from "../pods/addresses.ts";
import { destroyPodNow } from "../pods/destroy-pod.ts";
import type { Pod } from "../pods/pod.ts";
import { reconcileNodes } from "./reconcile-nodes.ts";

const bench = new PodWorkbench();
let app: WholeTestApp;
let operator: Person;
beforeAll(async () => {
  app = await buildWholeTestApp(bench.db);
  operator = await makePerson(bench.db, app.app, { platformRole: "OPERATOR" });
  await bench.db.system.execute(
    sql`UPDATE node_status SET capabilities = capabilities || ${["adopt"]} WHERE node_id = ${bench.nodeId}`,
  );
});
afterAll(() => app.close());

/** The host tells what it has. */
async function recordOnly(changes: Partial<Inventory> = {}): Promise<void> {
  const template = ContainerObservation.fromPartial({ vmid: 9_000, template: true });
  const inventory = smallInventory({ containers: [template, ...bench.host.containers.values()], ...changes });
  await recordInventory(bench.db.system, { nodeId: bench.nodeId, epoch: 1n }, inventory, { onAddress: recordAddress });
}

/** The host tells what it has; then everything is compared. @returns what was done */
async function tellAndCompare(changes: Partial<Inventory> = {}) {
  await recordOnly(changes);
  const commands: string[] = [];
  const log = pino({ level: "silent" });
  const deeds = await reconcileNodes({ db: bench.db.system, log, graceMs: 0, onCommand: (id) => commands.push(id) });
  expect(commands).toHaveLength(deeds.length);
  return deeds;
}

interface Shown {
  readonly id: string;
  readonly kind: string;
  readonly vmid: number;
  readonly offered: string[];
  readonly state: string;
  readonly sightings: number;
  readonly action: string | null;
  readonly evidence: Record<string, unknown>;
}

/** What is shown about one id. */
async function findings(vmid: number, state = "open"): Promise<Shown[]> {
  const answer = await send(app.app, "GET", `/api/nodes/findings?node=${bench.nodeId}&state=${state}&limit=200`, {
    headers: operator.headers,
  });
  expect(answer.status, answer.text).toBe(200);
  const { data } = JSON.parse(answer.text) as { data: Shown[] };
  return data.filter((finding) => finding.vmid === vmid);
}

async function resolve(finding: Shown | undefined, action: string) {
  const body = { action, reason: "decided in a test" };
  const path = `/api/nodes/findings/${finding?.id}/resolve`;
  const answer = await send(app.app, "POST", path, { headers: operator.headers, body });
  return { status: answer.status, json: JSON.parse(answer.text) as { error?: string; taskId: string | null } };
}

/** Tells until something is so: a look in the very moment in which work ended concludes nothing. */
async function tellUntil(isSo: () => Promise<boolean>): Promise<void> {
  await expect
    .poll(
      async () => {
        await tellAndCompare();
        return await isSo();
      },
      { timeout: 60_000, interval: 20 },
    )
    .toBe(true);
}

function seenOf(pod: Pod): ContainerObservation {
  const seen = bench.host.containers.get(pod.vmid);
  if (seen === undefined) throw new Error("the host has no such container");
  return seen;
}

describe("a pod's container", () => {
  test("that is destroyed by hand is shown, its pod says so, and nothing empty takes its place", async () => {
    const pod = await bench.activePod();
    await tellAndCompare();
    bench.host.lose(pod.vmid);
    await tellUntil(async () => (await findings(pod.vmid)).length > 0);
    const [finding] = await findings(pod.vmid);
    expect(finding).toMatchObject({
      kind: "missing",
      offered: ["remove", "dismiss"],
      evidence: { newestBackup: null },
    });
    expect((await bench.podNow(pod.id)).containerMissingSince).toBeInstanceOf(Date);
    const owner = await makePerson(bench.db, app.app, { tenants: { [bench.tenantId]: "owner" } });
    const scale = await send(app.app, "POST", `/api/cloud-pods/${pod.id}/scale`, {
      headers: owner.headers,
      body: { planCode: "CLOUD_POD_PREMIUM" },
    });
    expect([scale.status, scale.json["error"]]).toEqual([409, "CONTAINER_MISSING"]);
    const health = await send(app.app, "GET", `/api/cloud-pods/${pod.id}/health`, { headers: owner.headers });
    expect(health.json).toMatchObject({ healthy: false, conditions: [{ kind: "ContainerMissing" }] });
    expect(bench.host.made.get(pod.vmid)).toBe(1);
    // What is gone for good is given up like any other pod.
    expect((await resolve(finding, "accept")).json.error).toBe("REMEDY_NOT_OFFERED");
    const { json } = await resolve(finding, "remove");
    expect(await bench.end(json.taskId ?? "")).toEqual({ state: "succeeded", errorCode: null });
    await tellUntil(async () => (await findings(pod.vmid)).length === 0);
    expect((await resolve(finding, "dismiss")).json.error).toBe("FINDING_OVER");
  });

  test("that is resized by hand can be put back, or accepted and paid for from then on", async () => {
    const pod = await bench.activePod();
    const change = () => bench.host.meddle({ ...seenOf(pod), cores: 3, memoryMb: 2_048 });
    change();
    await tellUntil(async () => (await findings(pod.vmid)).length > 0);
    expect(await bench.allocations(pod.id)).toEqual([{ cores: pod.cores, open: true }]);
    const [finding] = await findings(pod.vmid);
    expect(finding).toMatchObject({ kind: "resized", offered: ["accept", "repair", "dismiss"] });
    expect((await resolve(finding, "repair")).status).toBe(200);
    await tellUntil(async () => (await findings(pod.vmid)).length === 0);
    expect(seenOf(pod).cores).toBe(pod.cores);

    change();
    await tellUntil(async () => (await findings(pod.vmid)).length > 0);
    const { json } = await resolve((await findings(pod.vmid))[0], "accept");
    expect(await bench.end(json.taskId ?? "")).toEqual({ state: "succeeded", errorCode: null });
    expect(await bench.podNow(pod.id)).toMatchObject({
      cores: 3,
      memoryMb: 2_048,
      planCode: null,
      billingMode: "metered",
    });
    expect(await bench.allocations(pod.id)).toEqual([
      { cores: pod.cores, open: false },
      { cores: 3, open: true },
    ]);
    await tellUntil(async () => (await findings(pod.vmid)).length === 0);
  });

  test("with another name stays dismissed until it gets yet another", async () => {
    const pod = await bench.activePod();
    bench.host.meddle({ ...seenOf(pod), hostname: "by-hand" });
    await tellUntil(async () => (await findings(pod.vmid)).length > 0);
    expect((await resolve((await findings(pod.vmid))[0], "dismiss")).status).toBe(200);
    await tellAndCompare();
    expect(await findings(pod.vmid)).toEqual([]);
    expect(await findings(pod.vmid, "dismissed")).toMatchObject([{ kind: "drift" }]);
    bench.host.meddle({ ...seenOf(pod), hostname: "by-another-hand" });
    await tellAndCompare();
    expect(await findings(pod.vmid)).toMatchObject([{ kind: "drift", sightings: 1 }]);
  });
});

test("archives that no host could remove are told with what they said, and tried again on an operator's word", async () => {
  const pod = await bench.activePod();
  const backupId = newId();
  await bench.db.system.execute(sql`
    INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, generation, vmid, spec,
      finished_at, delete_requested_at, errand_attempts, errand_after, error_code)
    SELECT ${backupId}, ${pod.tenantId}, ${pod.id}, v.node_id, v.storage_id, 'local', 'manual', 'stop', 'available', 'local:backup/x', 1, ${pod.vmid}, '{}',
      now(), now(), 12, now() + interval '6 hours', 'STORAGE_UNAVAILABLE' FROM node_storages v WHERE v.node_id = ${pod.nodeId} LIMIT 1`);
  await tellUntil(async () => (await findings(pod.vmid)).length > 0);
  const [finding] = await findings(pod.vmid);
  expect(finding).toMatchObject({ kind: "left-archive", offered: ["repair", "dismiss"] });
  expect(finding?.evidence).toEqual({
    archives: [
      { volumeId: "local:backup/x", madeFor: "backup", errand: "delete", tries: 12, error: "STORAGE_UNAVAILABLE" },
    ],
  });
  expect((await resolve(finding, "repair")).status).toBe(200);
  const [backup] = await bench.db.system.query(sql`
    SELECT errand_attempts AS attempts, errand_after <= now() AS due FROM cloud_pod_backups WHERE id = ${backupId}`);
  expect(backup).toEqual({ attempts: 0, due: true });
  await tellUntil(async () => (await findings(pod.vmid)).length === 0);
});

describe("a container without a place", () => {
  async function orphan(): Promise<Pod> {
    const pod = await bench.activePod();
    const container = { ...seenOf(pod), power: Power.POWER_STOPPED };
    const { task } = await bench.inTenant((tx) => destroyPodNow(tx, bench.who(), pod.id, new Date()));
    await bench.end(task.id);
    bench.host.meddle(container);
    return pod;
  }

  test("is removed at its second sighting, and only by an inventory that can be trusted", async () => {
    const pod = await orphan();
    await tellUntil(async () => (await findings(pod.vmid)).length > 0);
    const [first] = await findings(pod.vmid);
    expect(first).toMatchObject({ kind: "orphan", sightings: 1, action: null });
    expect(await tellAndCompare({ known: false })).toEqual([]);
    expect(await tellAndCompare({ quorate: false })).toEqual([]);
    expect(await tellAndCompare({ quorate: false, containers: [] })).toEqual([]);
    expect(await findings(pod.vmid)).toMatchObject([{ sightings: 1, action: null }]);
    expect(await tellAndCompare()).toMatchObject([{ deed: "remove", vmid: pod.vmid }]);
    await tellUntil(async () => (await findings(pod.vmid)).length === 0);
    expect(bench.host.containers.has(pod.vmid)).toBe(false);
    expect(await findings(pod.vmid, "resolved")).toMatchObject([{ kind: "orphan", action: "remove" }]);
  });

  test.each([
    [
      "a fault of ours is presumed",
      sql`INSERT INTO node_conditions (node_id, kind, message) SELECT id, 'MassVanishing', '' FROM nodes`,
      sql`DELETE FROM node_conditions WHERE kind = 'MassVanishing'`,
    ],
    [
      "orders wait after a restore",
      sql`UPDATE control_plane_epoch SET holds_orders = true`,
      sql`UPDATE control_plane_epoch SET holds_orders = false`,
    ],
  ])("is left alone while %s", async (_, begin, end) => {
    const pod = await orphan();
    await bench.db.system.execute(begin);
    try {
      await tellUntil(async () => ((await findings(pod.vmid))[0]?.sightings ?? 0) > 3);
      expect(bench.host.containers.has(pod.vmid)).toBe(true);
    } finally {
      await bench.db.system.execute(end);
    }
    await tellUntil(async () => !bench.host.containers.has(pod.vmid));
  });

  test("with a volume that no pod has is removed when an operator says so, with that volume", async () => {
    const pod = await orphan();
    bench.host.meddle({ ...seenOf(pod), partsOfNoPod: ["mp0"] });
    await tellUntil(async () => ((await findings(pod.vmid))[0]?.sightings ?? 0) > 3);
    const [finding] = await findings(pod.vmid);
    expect(finding).toMatchObject({ kind: "orphan", action: null, evidence: { volumes: ["mp0"] } });
    // What was added meanwhile is not what he has decided about.
    bench.host.meddle({ ...seenOf(pod), partsOfNoPod: ["mp0", "mp1"] });
    await recordOnly();
    expect(await resolve(finding, "remove")).toMatchObject({ status: 409, json: { error: "FINDING_OUTDATED" } });
    bench.host.meddle({ ...seenOf(pod), partsOfNoPod: ["mp0"] });
    await tellAndCompare();
    expect((await resolve(finding, "remove")).status).toBe(200);
    await tellUntil(async () => !bench.host.containers.has(pod.vmid));
    const [sent] = await bench.db.system.query(sql`
      SELECT command->'ensureAbsent' AS op FROM node_commands WHERE pod_id = ${pod.id} AND op = 'ensure_absent' ORDER BY id DESC LIMIT 1`);
    expect(sent).toEqual({ op: { volumes: ["mp0"] } });
  });

  test("of a pod that nobody knows is removed only when an operator says so", async () => {
    const unknown = ContainerObservation.fromPartial({ vmid: 7_001, podId: newId(), generation: 4n, hostname: "lost" });
    bench.host.meddle(unknown);
    await tellAndCompare();
    expect(await tellAndCompare()).toEqual([]);
    const [finding] = await findings(7_001);
    expect(finding).toMatchObject({ kind: "orphan", offered: ["remove", "dismiss"], evidence: { pod: "unknown" } });
    expect((await resolve(finding, "remove")).status).toBe(200);
    await tellUntil(async () => (await findings(7_001)).length === 0);
    expect(bench.host.containers.has(7_001)).toBe(false);
  });
});

describe("a container that nobody manages", () => {
  let vmid = 8_000;
  /** Somebody makes a container by hand; the host tells of it. */
  async function byHand(
    changes: Parameters<typeof ContainerObservation.fromPartial>[0] = {},
  ): Promise<ContainerObservation> {
    vmid += 1;
    const container = ContainerObservation.fromPartial({
      vmid,
      power: Power.POWER_RUNNING,
      cores: 2,
      memoryMb: 1_024,
      swapMb: 256,
      diskGb: 8,
      hostname: "legacy-shop",
      ip: "10.1.2.3",
      mac: `BC:24:11:AA:${String(Math.floor((vmid - 8_000) / 100)).padStart(2, "0")}:${String(vmid % 100).padStart(2, "0")}`,
      storage: "local-lvm",
      configSha256: "ab".repeat(32),
      unprivileged: true,
      network: { bridge: "vmbr0", ip: "10.1.2.3/24", gateway: "10.1.2.1" },
      nameserver: "10.1.2.1",
      ...changes,
    });
    bench.host.meddle(container);
    await tellAndCompare();
    return container;
  }

  async function adopt(container: { readonly vmid: number }, more: object = {}) {
    const body = { node: bench.nodeId, vmid: container.vmid, tenantId: bench.tenantId, ...more };
    const answer = await send(app.app, "POST", "/api/cloud-pods/admin/adopt", { headers: operator.headers, body });
    return { status: answer.status, json: JSON.parse(answer.text) };
  }

  test("becomes a tenant's pod as it is, also when it was started since its host told of it", async () => {
    const container = { ...(await byHand({ power: Power.POWER_STOPPED })), power: Power.POWER_RUNNING };
    bench.host.meddle(container);
    expect(await findings(vmid)).toMatchObject([{ kind: "unmanaged", offered: ["adopt", "dismiss"] }]);
    const { status, json } = await adopt(container);
    expect(status, JSON.stringify(json)).toBe(202);
    expect(await bench.end(json.task.id)).toEqual({ state: "succeeded", errorCode: null });
    const pod = await bench.podNow(json.pod.id);
    expect(pod).toMatchObject({
      status: "active",
      vmid: container.vmid,
      cores: 2,
      memoryMb: 1_024,
      diskGb: 8,
      mac: container.mac,
      ip: "10.1.2.3",
      hostname: "legacy-shop",
      desiredPower: "running",
      observedPower: "running",
      planCode: null,
    });
    const network = { ip: "10.1.2.3/24", gateway: "10.1.2.1" };
    expect(seenOf(pod)).toMatchObject({ podId: pod.id, generation: 1n, network, nameserver: "10.1.2.1" });
    expect(await bench.claim(pod.id)).toEqual({ cpu: 2, memoryMb: 1_024, diskGb: 8 });
    expect(await bench.used()).toMatchObject({ pods: 1, cores: 2, memoryMb: 1_024, diskGb: 8 });
    expect(await bench.allocations(pod.id)).toEqual([{ cores: 2, open: true }]);
    await tellUntil(async () => (await findings(container.vmid)).length === 0);
    expect((await adopt(container)).json.details).toEqual({ reasons: ["it carries the mark of a pod"] });
  });

  test("stays as it was when the host refuses, and so do the books", async () => {
    const container = await byHand();
    bench.script = failing("adopt", "CONFIG_CHANGED");
    const { json } = await adopt(container);
    expect(await bench.end(json.task.id)).toEqual({ state: "failed", errorCode: "CONFIG_CHANGED" });
    expect(bench.host.containers.get(container.vmid)).toEqual(container);
    expect(await bench.claim(json.pod.id)).toBeUndefined();
    expect(await bench.used()).toMatchObject({ pods: 0, cores: 0 });
    const [row] = await bench.db.system.query(sql`
      SELECT p.status, p.activated_at AS "activatedAt", s.state FROM cloud_pods p JOIN subscriptions s ON s.id = p.subscription_id WHERE p.id = ${json.pod.id}`);
    expect(row).toEqual({ status: "deleted", activatedAt: null, state: "CANCELLED" });
    bench.host.lose(container.vmid);
    bench.script = () => undefined;
    expect((await adopt(await byHand())).status).toBe(202);
  });

  test("and that an adoption in vain has marked is neither stopped nor removed, and can be adopted again", async () => {
    const container = await byHand();
    bench.script = failing("adopt", "TIMED_OUT");
    const { json } = await adopt(container);
    await bench.end(json.task.id);
    const markedInVain = { ...container, podId: json.pod.id, generation: 1n };
    bench.host.meddle(markedInVain);
    await tellUntil(async () => ((await findings(container.vmid))[0]?.sightings ?? 0) > 3);
    expect(bench.host.containers.get(container.vmid)).toEqual(markedInVain);
    const [finding] = await findings(container.vmid);
    expect(finding).toMatchObject({ kind: "orphan", offered: ["adopt", "dismiss"], action: null });
    expect((await resolve(finding, "remove")).json.error).toBe("REMEDY_NOT_OFFERED");

    bench.script = () => undefined;
    const again = await adopt(container);
    expect(again.status, JSON.stringify(again.json)).toBe(202);
    expect(await bench.end(again.json.task.id)).toEqual({ state: "succeeded", errorCode: null });
    expect(again.json.pod.id).not.toBe(json.pod.id);
    const [sent] = await bench.db.system.query(sql`
      SELECT command->'adopt'->>'replacesPodId' AS replaces FROM node_commands WHERE pod_id = ${again.json.pod.id} AND op = 'adopt'`);
    expect(sent).toEqual({ replaces: json.pod.id });
    expect(seenOf(await bench.podNow(again.json.pod.id))).toMatchObject({ podId: again.json.pod.id });
    await tellUntil(async () => (await findings(container.vmid)).length === 0);
  });

  test.each([
    ["it is privileged", { unprivileged: false }, {}, [409, "CONTAINER_NOT_ADOPTABLE"]],
    ["it is locked", { lock: "backup" }, {}, [409, "CONTAINER_NOT_ADOPTABLE"]],
    ["it has another volume", { partsOfNoPod: ["mp0"] }, {}, [409, "CONTAINER_NOT_ADOPTABLE"]],
    ["it has no limit of cores", { cores: 0 }, {}, [409, "CONTAINER_NOT_ADOPTABLE"]],
    ["the host has promised its memory to others", { memoryMb: 64_000_000 }, {}, [503, "NO_CAPACITY"]],
    ["it is of another size than the plan", {}, { planCode: "STARTER" }, [422, "PLAN_DOES_NOT_MATCH"]],
    ["there is no such tenant", {}, { tenantId: newId() }, [404, "TENANT_NOT_FOUND"]],
    ["the host does not show it", {}, { vmid: 4_242 }, [404, "CONTAINER_NOT_FOUND"]],
  ])("cannot be adopted when %s", async (_, changes, more, refusal) => {
    const roomy = sql`UPDATE cloud_pod_quotas SET max_ram_mb = 2000000000 WHERE tenant_id = ${bench.tenantId}`;
    await bench.db.system.execute(roomy);
    const container = await byHand(changes);
    const { status, json } = await adopt(container, more);
    expect([status, json.error]).toEqual(refusal);
    expect(await bench.used()).toMatchObject({ pods: 0 });
    bench.host.lose(container.vmid);
  });

  test("with the id of a living pod is a conflict", async () => {
    const pod = await bench.activePod();
    const container = await byHand({ vmid: pod.vmid });
    expect((await adopt(container)).json.error).toBe("VMID_CONFLICT");
  });
});
