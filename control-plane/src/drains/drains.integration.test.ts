import { describe, expect, test } from "vitest";
import { drainsOf, lockHost } from "../../../test/support/drain-workbench.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import { createFleetView } from "../scheduling/fleet-view.ts";
import { driveDrains } from "./drive-drains.ts";

const bench = new MoveWorkbench();
const drains = drainsOf(bench);

const order = { reason: "memory is replaced", maxParallel: 2 };

async function podsOn(node: BenchNode, count: number): Promise<Pod[]> {
  const pods: Pod[] = [];
  for (let index = 0; index < count; index++) pods.push(await bench.podOn(node, index === 0 ? "stopped" : "running"));
  return pods;
}

async function places(pods: readonly Pod[]): Promise<(string | null)[]> {
  return await Promise.all(pods.map(async ({ id }) => (await bench.podNow(id)).nodeId));
}

/** Of an operator, before he thought of a drain. */
const ownCordon = { reason: "disk is failing", until: "2099-01-01T00:00:00.000Z" };

async function cordonOf({ name }: BenchNode): Promise<unknown[]> {
  const { json } = await drains.call("GET", `/api/nodes/${name}`);
  return [json["cordonReason"], json["cordonedUntil"]];
}

/** Room for so many pods of the plan STARTER (1 core, 1 GB). */
const roomFor = (pods: number) => ({ cores: 32, memoryMb: pods * 1_024 });

test("a drain shows its plan, claims every place before it moves the first, and empties the host", async () => {
  const [from, a, b] = three(await bench.nodes(3));
  const pods = await podsOn(from, 4);
  // It waits for nobody who changes the host meanwhile, and keeps nobody waiting.
  const plan = await bench.db.system.transaction(async (tx) => {
    await lockHost(tx, from);
    return await drains.call("POST", `/api/nodes/${from.name}/drain?dryRun=true`, order);
  });
  expect(plan).toMatchObject({ status: 200, json: { dryRun: true, movable: 4, blocked: 0, totalMs: null } });
  expect((await drains.call("GET", `/api/nodes/${from.name}`)).json).toMatchObject({ schedulable: true });
  const atFirstMove: number[] = [];
  let moving = 0;
  let movingMax = 0;
  bench.hosts.script = (command) => {
    if (command.op?.$case === "backup") {
      moving += 1;
      movingMax = Math.max(movingMax, moving);
    }
    if (command.op?.$case === "deleteBackup") moving -= 1;
    return undefined;
  };
  await drains.call("POST", `/api/nodes/${from.name}/cordon`, ownCordon);
  const started = await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  expect(started).toMatchObject({ status: 202, json: { state: "planning", kind: "drain" } });
  for (const query of ["", "?dryRun=true"])
    expect(await drains.call("POST", `/api/nodes/${from.name}/drain${query}`, order)).toMatchObject({
      status: 409,
      json: { error: "DRAIN_RUNNING" },
    });
  expect(await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {})).toMatchObject({
    json: { error: "NODE_DRAINING" },
  });
  await drains.drive();
  const [claimed] = await bench.db.system.query<{ count: number }>(
    sql`SELECT count(*)::integer AS count FROM node_claims WHERE purpose = 'move' AND tenant_id = ${bench.tenantId}`,
  );
  atFirstMove.push(claimed?.count ?? 0);
  expect(atFirstMove).toEqual([4]);
  const end = await drains.driveToEnd(from);
  expect(end).toMatchObject({
    state: "drained",
    percent: 100,
    counts: { moved: 4 },
    outcome: "No pod is left on the host.",
  });
  expect(movingMax).toBeLessThanOrEqual(2);
  expect(new Set(await places(pods)).isSubsetOf(new Set([a.id, b.id]))).toBe(true);
  expect(bench.hosts.containers.get(from.id)?.size).toBe(0);
  expect((await bench.podNow(pods[0]?.id ?? "")).desiredPower).toBe("stopped");
  expect(end["downtimeMs"]).toMatchObject({ max: expect.any(Number) });
  // Whatever it was cordoned for before, an emptied host stays closed.
  expect(await cordonOf(from)).toEqual(["drain: memory is replaced", null]);
  const events = await drains.call("GET", `/api/nodes/${from.name}/events?limit=1`);
  expect(events.json).toMatchObject({ data: [{ kind: "DRAIN_ENDED" }] });
  expect((await drains.call("GET", "/api/nodes/drains?state=drained")).text).toContain(from.name);
});

describe("where there is no place for all", () => {
  test("nothing moves, or as many as have one, as was asked; blockers are named", async () => {
    const [from] = await bench.nodes(1);
    const [small] = await bench.nodes(1, { size: roomFor(2) });
    const pods = await podsOn(from ?? noHost(), 3);
    const where = `/api/nodes/${from?.name ?? ""}/drain`;
    expect(await drains.call("POST", `${where}?dryRun=true`, order)).toMatchObject({
      json: { movable: 2, blocked: 1 },
    });
    await drains.call("POST", where, order);
    const failed = await drains.driveToEnd(from ?? noHost());
    expect(failed).toMatchObject({ state: "incomplete", counts: { blocked: 1, left: 2 } });
    expect(JSON.stringify(failed["pods"])).toContain("short of memory");
    expect(new Set(await places(pods))).toEqual(new Set([from?.id]));
    expect((await drains.call("POST", where, { ...order, onNoCapacity: "partial" })).status).toBe(202);
    expect(await drains.driveToEnd(from ?? noHost())).toMatchObject({
      state: "incomplete",
      counts: { moved: 2, blocked: 1 },
    });
    expect((await places(pods)).filter((place) => place === small?.id)).toHaveLength(2);
  });
});

test("a pod with a volume that no archive holds is named before anything begins, and stays", async () => {
  const [from] = three(await bench.nodes(3));
  const [, more] = [await bench.podOn(from), await bench.podOn(from)];
  await bench.giveVolumes(from, more, ["mp0"]);
  const blocker = { code: "MORE_THAN_A_POD", message: expect.stringContaining("mp0 (seen at ") };
  const plan = await drains.call("POST", `/api/nodes/${from.name}/drain?dryRun=true`, order);
  expect(plan).toMatchObject({ json: { movable: 1, blocked: 1 } });
  expect(plan.json["moves"]).toContainEqual(expect.objectContaining({ podId: more.id, target: null, blocker }));
  await drains.call("POST", `/api/nodes/${from.name}/drain`, { ...order, onNoCapacity: "partial" });
  const end = await drains.driveToEnd(from);
  expect(end).toMatchObject({ state: "incomplete", counts: { moved: 1, blocked: 1 } });
  expect(end["pods"]).toContainEqual(expect.objectContaining({ podId: more.id, blocker }));
  expect(await places([more])).toEqual([from.id]);
  expect(bench.hosts.carriedOut.filter((one) => one === `backup@${from.name}`)).toHaveLength(1);
  // As soon as its host shows it as a pod it goes like the others.
  await bench.giveVolumes(from, more, []);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "drained", counts: { moved: 1 } });
  expect(await places([more])).not.toEqual([from.id]);
});

test("a target that is cordoned meanwhile is replaced before any pod goes there", async () => {
  const [from] = await bench.nodes(1);
  const [first] = await bench.nodes(1);
  const pods = await podsOn(from ?? noHost(), 2);
  await drains.call("POST", `/api/nodes/${from?.name ?? ""}/drain`, { ...order, maxParallel: 1 });
  // The pods are busy for the loop until their places are claimed: hold the hosts meanwhile.
  bench.hosts.away.add(from?.id ?? "");
  await drains.drive();
  const [second] = await bench.nodes(1);
  await bench.db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE id = ${first?.id}`);
  bench.fleet = createFleetView();
  bench.hosts.away.clear();
  const end = await drains.driveToEnd(from ?? noHost());
  expect(end).toMatchObject({ state: "drained" });
  // The first had begun already, the other one had not.
  expect((await places(pods)).filter((place) => place === second?.id).length).toBeGreaterThanOrEqual(1);
});

test("a cancelled drain begins nothing more, ends what it began, and keeps no place", async () => {
  const [from, to] = two(await bench.nodes(2));
  const pods = await podsOn(from, 3);
  bench.hosts.away.add(from.id);
  await drains.call("POST", `/api/nodes/${from.name}/cordon`, ownCordon);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  await drains.drive();
  // The archive of the first is being made, the second waits for its turn with its pod running, the third has not begun.
  const asked = sql`SELECT id FROM node_commands WHERE node_id = ${from.id} AND op = 'backup' AND state = 'pending' ORDER BY id`;
  const commands = () => bench.db.system.query<{ id: string }>(asked);
  await expect.poll(async () => (await commands()).length, { timeout: 60_000 }).toBe(2);
  const [first] = await commands();
  const tell = (state: string) =>
    bench.db.system.execute(sql`UPDATE node_commands SET state = ${state} WHERE id = ${first?.id}`);
  await tell("running");
  const claimed = sql`SELECT pod_id AS id FROM cloud_pod_moves WHERE from_node_id = ${from.id} AND state = 'reserved'`;
  const [third] = await bench.db.system.query<{ id: string }>(claimed);
  for (const query of ["", "?dryRun=true"])
    expect(
      await drains.call("POST", `/api/cloud-pods/admin/${third?.id ?? ""}/migrate${query}`, { reason: "x" }),
    ).toMatchObject({ status: 409, json: { error: "MOVE_RESERVED" } });
  expect(await drains.call("DELETE", `/api/nodes/${from.name}/drain`)).toMatchObject({ status: 202 });
  await drains.drive();
  await tell("pending");
  bench.hosts.away.clear();
  // Until its host has taken it up it would be one that waits.
  await expect.poll(async () => (await commands()).map(({ id }) => id), { timeout: 60_000 }).not.toContain(first?.id);
  const end = await drains.driveToEnd(from);
  expect(end).toMatchObject({ state: "cancelled", counts: { moved: 1, left: 2 } });
  expect(await cordonOf(from)).toEqual([ownCordon.reason, ownCordon.until]);
  expect((await places(pods)).filter((place) => place === to.id)).toHaveLength(1);
  const reserved = await bench.db.system.query(
    sql`SELECT FROM node_claims WHERE purpose = 'move' AND tenant_id = ${bench.tenantId}`,
  );
  expect(reserved).toEqual([]);
  expect(await drains.call("DELETE", `/api/nodes/${from.name}/drain`)).toMatchObject({
    status: 404,
    json: { error: "NO_DRAIN" },
  });
  expect((await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {})).status).toBe(200);
});

test("when time is up, what has not begun is left where it is", async () => {
  const [from] = two(await bench.nodes(2));
  const pods = await podsOn(from, 2);
  await drains.call("POST", `/api/nodes/${from.name}/cordon`, ownCordon);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  await bench.db.system.execute(sql`UPDATE node_drains SET deadline_at = now() WHERE node_id = ${from.id}`);
  expect(await drains.driveToEnd(from)).toMatchObject({
    state: "incomplete",
    counts: { left: 2 },
    outcome: "2 pods are still on the host: 2 DEADLINE_PASSED.",
    pods: [{ blocker: { code: "DEADLINE_PASSED" } }, { blocker: { code: "DEADLINE_PASSED" } }],
  });
  expect(await places(pods)).toEqual([from.id, from.id]);
  // Nothing came of it: the host is closed for the reason and as long as it was before.
  expect(await cordonOf(from)).toEqual([ownCordon.reason, ownCordon.until]);
});

test("a target that is away for a moment is none for ever: its place is looked for again until time is up", async () => {
  const [from, to] = two(await bench.nodes(2));
  const pods = await podsOn(from, 2);
  bench.hosts.away.add(from.id);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, { ...order, maxParallel: 1 });
  await drains.drive();
  // The first is to have set out: one that a worker takes up only now would wait for its target too.
  const asked = sql`SELECT FROM node_commands WHERE node_id = ${from.id} AND op = 'backup'`;
  await expect.poll(async () => (await bench.db.system.query(asked)).length, { timeout: 60_000 }).toBe(1);
  const shown = async () => (await drains.call("GET", `/api/nodes/${from.name}/drain`)).json;
  expect(await shown()).toMatchObject({ state: "moving", counts: { moving: 1, claimed: 1 } });
  const target = (state: string, since = sql`now()`) =>
    bench.db.system.execute(
      sql`UPDATE node_status SET state = ${state}, state_since = ${since} WHERE node_id = ${to.id}`,
    );
  // For a moment: its places are kept.
  await target("degraded");
  bench.fleet = createFleetView();
  await drains.drive();
  expect(await shown()).toMatchObject({ state: "moving", counts: { moving: 1, claimed: 1 } });
  await target("degraded", sql`now() - interval '2 minutes'`);
  await drains.drive();
  const blocker = expect.objectContaining({ code: "NO_HOST" });
  expect(await shown()).toMatchObject({ state: "moving", counts: { blocked: 1 } });
  expect((await shown())["pods"]).toContainEqual(expect.objectContaining({ state: "blocked", blocker }));
  await target("online");
  await drains.drive();
  expect(await shown()).toMatchObject({ counts: { blocked: 1 } });
  await bench.db.system.execute(
    sql`UPDATE node_drain_pods SET updated_at = updated_at - interval '1 minute' WHERE state = 'blocked'`,
  );
  bench.hosts.away.clear();
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "drained", counts: { moved: 2 } });
  expect(await places(pods)).toEqual([to.id, to.id]);
});

test("when time is up, what holds a place goes there by archive, if that was asked for", async () => {
  const [from, to] = two(await bench.nodes(2, { cluster: true }));
  const pods = await podsOn(from, 2);
  bench.hosts.away.add(from.id);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, {
    ...order,
    maxParallel: 1,
    onDeadline: "stop-and-restore",
  });
  await drains.drive();
  // The first has begun by migration, which Proxmox does only where the guest shuts down.
  await bench.db.system.execute(sql`UPDATE node_drains SET deadline_at = now() WHERE node_id = ${from.id}`);
  bench.hosts.away.clear();
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "drained", counts: { moved: 2 } });
  expect(await places(pods)).toEqual([to.id, to.id]);
  const ways = await bench.db.system.query<{ strategy: string }>(sql`
    SELECT strategy FROM cloud_pod_moves WHERE from_node_id = ${from.id} AND state = 'moved' ORDER BY begun_at`);
  expect(ways.map(({ strategy }) => strategy)).toEqual(["cluster-migrate", "backup-restore"]);
});

test("a pod whose move fails on one host goes to another, and comes home when the host is open again", async () => {
  const [from, bad, good] = three(await bench.nodes(3));
  const pod = await bench.podOn(from);
  bench.hosts.script = (command) =>
    command.nodeId === bad.id && command.op?.$case === "restore"
      ? { state: "failed", errorCode: "STORAGE_FULL", retryable: false }
      : undefined;
  await bench.db.system.execute(sql`UPDATE node_capacity SET cpu_reserved = cpu_total WHERE node_id = ${good.id}`);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, { ...order, returnHome: true });
  await drains.drive();
  await bench.db.system.execute(sql`UPDATE node_capacity SET cpu_reserved = 0 WHERE node_id = ${good.id}`);
  const end = await drains.driveToEnd(from);
  expect(end).toMatchObject({ state: "drained", pods: [{ state: "moved", target: good.name }] });
  // It was away twice: for the try that came to nothing, and for the one that did not.
  const tries = sql`SELECT state, downtime_ms AS ms FROM cloud_pod_moves WHERE pod_id = ${pod.id} ORDER BY id`;
  const [vain, done] = await bench.db.system.query<{ state: string; ms: number }>(tries);
  expect([vain, done]).toMatchObject([{ state: "undone", ms: expect.any(Number) }, { state: "moved" }]);
  const awayMs = (vain?.ms ?? Number.NaN) + (done?.ms ?? Number.NaN);
  expect(end).toMatchObject({ downtimeMs: { max: awayMs }, pods: [{ downtimeMs: awayMs }] });
  await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {});
  await expect
    .poll(
      async () => {
        await drains.drive();
        return (await drains.call("GET", `/api/nodes/${from.name}/drain`)).json["returnedAt"] !== null;
      },
      { timeout: 60_000, interval: 20 },
    )
    .toBe(true);
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: from.id });
  const { json: home } = await drains.call("GET", `/api/nodes/${from.name}/drain`);
  expect(home).toMatchObject({ counts: { returned: 1 } });
  expect((home["pods"] as { downtimeMs: number }[])[0]?.downtimeMs).toBeGreaterThan(awayMs);
});

test("a driver that dies after every single thing it does still empties the host", async () => {
  const [from, to] = two(await bench.nodes(2));
  const pods = await podsOn(from, 3);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  const mortal = (): Database => {
    let done = 0;
    const { system } = bench.db;
    return {
      ...system,
      async transaction(work, how) {
        if (done > 1) throw new Error("killed");
        const result = await system.transaction(work, how);
        done += 1;
        return result;
      },
    };
  };
  await expect
    .poll(
      async () => {
        await driveDrains({ db: mortal(), fleet: bench.fleet, onQueued: () => {} }).catch(() => {});
        return (await drains.call("GET", `/api/nodes/${from.name}/drain`)).json["state"];
      },
      { timeout: 40_000, interval: 10 },
    )
    .toBe("drained");
  expect(new Set(await places(pods))).toEqual(new Set([to.id]));
});

test("a pod that waits for other work says so", async () => {
  const [from, to] = two(await bench.nodes(2));
  const pod = await bench.podOn(from);
  bench.hosts.away.add(from.id);
  const by = { target: to.name, reason: "before the drain" };
  expect((await drains.call("POST", `/api/cloud-pods/admin/${pod.id}/migrate`, by)).status).toBe(202);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  await drains.drive();
  expect((await drains.call("GET", `/api/nodes/${from.name}/drain`)).json).toMatchObject({
    state: "planning",
    pods: [{ state: "pending", blocker: { code: "POD_BUSY", message: expect.stringContaining("migrate") } }],
  });
  bench.hosts.away.clear();
  expect(await drains.driveToEnd(from)).toMatchObject({
    state: "drained",
    counts: { gone: 1 },
    pods: [{ blocker: null }],
  });
});

test("a host that is removed before its drain has noticed that it is empty is not cordoned any more", async () => {
  const [from] = two(await bench.nodes(2));
  await drains.call("POST", `/api/nodes/${from.name}/cordon`, ownCordon);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  expect((await drains.call("DELETE", `/api/nodes/${from.name}`)).status).toBeLessThan(300);
  await drains.drive();
  const told = sql`SELECT kind FROM node_events WHERE node_id = ${from.id} ORDER BY id DESC LIMIT 2`;
  expect(await bench.db.system.query(told)).toEqual([{ kind: "DRAIN_ENDED" }, { kind: "REMOVED" }]);
});

test("its progress is a stream that ends with it", async () => {
  const [from] = two(await bench.nodes(2));
  await podsOn(from, 1);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  expect(await cordonOf(from)).toEqual(["drain: memory is replaced", null]);
  const streaming = drains.call("GET", `/api/nodes/${from.name}/drain/events`);
  await drains.driveToEnd(from);
  expect((await streaming).text.trim().split("\n").at(-1)).toContain('"state":"drained"');
});

function two(nodes: readonly BenchNode[]): [BenchNode, BenchNode] {
  const [a = noHost(), b = noHost()] = nodes;
  return [a, b];
}

function three(nodes: readonly BenchNode[]): [BenchNode, BenchNode, BenchNode] {
  const [a = noHost(), b = noHost(), c = noHost()] = nodes;
  return [a, b, c];
}

function noHost(): never {
  throw new Error("no host");
}
