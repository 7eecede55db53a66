import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { drainsOf, lockHost } from "../../../test/support/drain-workbench.ts";
import { backUp, comeBack, vanish } from "../../../test/support/lost-hosts.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { clearLeftCopies } from "../moves/left-copies.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import { answerForLostHost } from "./answer-for-lost-host.ts";

const bench = new MoveWorkbench();
const doors = () => ({ db: bench.db.system, log: pino({ level: "silent" }) });
const drains = drainsOf(bench);

const order = { reason: "the host burnt", confirmFenced: true };

test("is refused for a host that may live, and without the word that it is cut off", async () => {
  const [node] = await bench.nodes(2);
  const where = `/api/nodes/${node?.name ?? ""}/evacuate`;
  expect(await drains.call("POST", where, order)).toMatchObject({ status: 409, json: { error: "NODE_NOT_GONE" } });
  expect(await drains.call("POST", `${where}?dryRun=true`, order)).toMatchObject({ json: { error: "NODE_NOT_GONE" } });
  await vanish(bench, node ?? noHost());
  for (const query of ["", "?dryRun=true"])
    expect(await drains.call("POST", `/api/nodes/${node?.name ?? ""}/drain${query}`, { reason: "x" })).toMatchObject({
      status: 409,
      json: { error: "NODE_NOT_ONLINE" },
    });
  expect((await drains.call("POST", where, { ...order, confirmFenced: false })).status).toBe(422);
  const unconfirmed = { reason: order.reason };
  expect(await drains.call("POST", where, unconfirmed)).toMatchObject({
    status: 422,
    json: { error: "FENCING_NOT_CONFIRMED", errors: [{ pointer: "/confirmFenced" }] },
  });
  expect(await drains.call("POST", `${where}?dryRun=true`, unconfirmed)).toMatchObject({ status: 200 });
  // A drain that begins after the evacuation has looked for one to end; it ends with the next.
  const waiting = sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
  const { asked } = await bench.db.system.transaction(async (tx) => {
    await lockHost(tx, node ?? noHost());
    const asking = drains.call("POST", where, order);
    await expect.poll(() => bench.db.system.query(waiting), { timeout: 60_000 }).not.toEqual([]);
    expect(await drains.call("POST", `${where}?dryRun=true`, order), "it waits for nobody").toMatchObject({
      status: 200,
    });
    await tx.execute(sql`
      INSERT INTO node_drains (id, node_id, kind, reason, requested_by, request_id, max_parallel, deadline_at, on_no_capacity, on_deadline)
      VALUES (${newId()}, ${node?.id ?? ""}, 'drain', 'work', 'test', 'test', 1, now() + interval '1 h', 'fail', 'leave')`);
    return { asked: asking };
  });
  expect(await asked).toMatchObject({ status: 409, json: { error: "DRAIN_RUNNING" } });
  expect(await drains.call("POST", where, order)).toMatchObject({ status: 202 });
  for (const query of ["", "?dryRun=true"])
    expect(await drains.call("POST", `${where}${query}`, order)).toMatchObject({
      status: 409,
      json: { error: "DRAIN_RUNNING" },
    });
});

test.each(["session_seen_at", "last_heartbeat_at"])(
  "is refused while anything is heard of the host, whatever its state says (%s)",
  async (sign) => {
    const [node = noHost()] = await bench.nodes(2);
    await vanish(bench, node);
    const heard =
      sign === "session_seen_at"
        ? sql`session_connected = true, session_seen_at = now()`
        : sql`last_heartbeat_at = now()`;
    await bench.db.system.execute(sql`UPDATE node_status SET ${heard} WHERE node_id = ${node.id}`);
    const refused = { status: 409, json: { error: "NODE_NOT_GONE", detail: expect.stringContaining("a moment ago") } };
    for (const query of ["", "?dryRun=true"])
      expect(await drains.call("POST", `/api/nodes/${node.name}/evacuate${query}`, order)).toMatchObject(refused);
    // A gateway that was killed leaves its sessions noted as connected.
    await bench.db.system.execute(sql`
      UPDATE node_status SET session_connected = true, session_seen_at = now() - interval '20 s', last_heartbeat_at = now() - interval '20 s' WHERE node_id = ${node.id}`);
    expect((await drains.call("POST", `/api/nodes/${node.name}/evacuate`, order)).status).toBe(202);
  },
);

test("takes over from the drain that the host died in", async () => {
  const [dead, to] = two(await bench.nodes(2));
  const [moving, waiting] = [await bench.podOn(dead), await bench.podOn(dead)];
  for (const pod of [moving, waiting]) await backUp(bench, pod, dead, 600);
  await drains.call("POST", `/api/nodes/${dead.name}/drain`, { reason: "memory is replaced", maxParallel: 1 });
  await vanish(bench, dead);
  await drains.drive();
  expect((await drains.call("GET", `/api/nodes/${dead.name}/drain`)).json).toMatchObject({
    counts: { moving: 1, claimed: 1 },
  });
  const evacuate = `/api/nodes/${dead.name}/evacuate`;
  expect(await drains.call("POST", `${evacuate}?dryRun=true`, order)).toMatchObject({ json: { movable: 2 } });
  expect(await drains.call("POST", evacuate, order)).toMatchObject({ status: 202 });
  const { json } = await drains.call("GET", "/api/nodes/drains?limit=2");
  expect(json["data"]).toMatchObject([
    { kind: "evacuation", finishedAt: null },
    { kind: "drain", state: "cancelled", outcome: expect.stringContaining("evacuation") },
  ]);
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { moved: 2 } });
  for (const pod of [moving, waiting]) {
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: to.id, status: "active" });
    expect(bench.hosts.at(to.id, pod.vmid)).toMatchObject({ power: Power.POWER_RUNNING });
  }
});

test("brings pods back from their newest backups, shows how old those are, and keeps the rest", async () => {
  const [dead, to] = two(await bench.nodes(2));
  const [pod, bare] = [await bench.podOn(dead), await bench.podOn(dead)];
  await backUp(bench, pod, dead, 7_200);
  const newest = await backUp(bench, pod, dead, 600);
  bench.hosts.write(pod.vmid);
  await vanish(bench, dead);
  const plan = await drains.call("POST", `/api/nodes/${dead.name}/evacuate?dryRun=true`, order);
  expect(plan.json).toMatchObject({ movable: 1, blocked: 1 });
  const planned = (plan.json["moves"] as { podId: string; archive?: { backupId: string; ageSeconds: number } }[]).find(
    ({ podId }) => podId === pod.id,
  );
  expect(planned?.archive).toMatchObject({ backupId: newest });
  expect(Math.abs((planned?.archive?.ageSeconds ?? 0) - 600)).toBeLessThan(120);
  await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, order);
  const end = await drains.driveToEnd(dead);
  expect(end).toMatchObject({ state: "incomplete", kind: "evacuation", counts: { moved: 1, blocked: 1 } });
  expect(JSON.stringify(end["pods"])).toContain("NO_BACKUP");
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: to.id, generation: 2n, status: "active" });
  // What was written after the backup is gone, and the customer's backup is still there.
  expect(bench.hosts.at(to.id, pod.vmid)).toMatchObject({ written: 1, power: Power.POWER_RUNNING });
  expect(bench.hosts.archives.size).toBe(2);
  expect(await bench.podNow(bare.id)).toMatchObject({ nodeId: dead.id, status: "active" });
  const [node] = await bench.db.system.query(sql`SELECT state FROM node_status WHERE node_id = ${dead.id}`);
  expect(node).toEqual({ state: "lost" });
  // Room on the dead host is held until it is back; its copy goes after a time of grace.
  expect((await bench.books(pod.id)).claims.map(({ nodeId }) => nodeId)).toEqual([dead.id, to.id]);
  await comeBack(bench, dead);
  expect(await clearLeftCopies(doors())).toEqual({ asked: [], released: 0 });
  await expect
    .poll(
      async () => {
        await clearLeftCopies(doors(), 0);
        return (await bench.books(pod.id)).claims.map(({ nodeId }) => nodeId);
      },
      { timeout: 60_000, interval: 20 },
    )
    .toEqual([to.id]);
  expect(bench.hosts.copies(pod.vmid).here).toEqual([to.id]);
  expect(bench.hosts.copies(bare.vmid).here).toEqual([dead.id]);
});

test("what is lost is said to be lost, is not paid for any more, and then the host can be removed", async () => {
  const [dead, to] = two(await bench.nodes(2));
  const [bare, saved] = [await bench.podOn(dead), await bench.podOn(dead)];
  await backUp(bench, saved, dead, 60);
  await vanish(bench, dead);
  expect(await drains.call("DELETE", `/api/nodes/${dead.name}`)).toMatchObject({
    status: 409,
    json: { error: "NODE_NOT_EMPTY", detail: expect.stringContaining("evacuate it first") },
  });
  await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, { ...order, onNoBackup: "mark-lost" });
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { lost: 1, moved: 1 } });
  expect(await bench.podNow(bare.id)).toMatchObject({ status: "failed", nodeId: null, lastErrorCode: "POD_LOST" });
  const open = await bench.db.system.query(
    sql`SELECT FROM cloud_pod_allocations WHERE pod_id = ${bare.id} AND upper_inf(valid)`,
  );
  expect(open).toEqual([]);
  expect((await drains.call("DELETE", `/api/nodes/${dead.name}`)).status).toBe(200);
  expect((await bench.books(saved.id)).claims.map(({ nodeId }) => nodeId)).toEqual([to.id]);
  expect((await bench.books(bare.id)).claims).toEqual([]);
});

describe("a host that comes back", () => {
  test("before its pod was brought back keeps it, and nothing of the attempt is left", async () => {
    const [dead, to] = two(await bench.nodes(2));
    const pod = await bench.podOn(dead);
    await beingRestored(dead, to, pod);
    await comeBack(bench, dead);
    bench.hosts.away.delete(to.id);
    await expect.poll(async () => await moveState(pod), { timeout: 60_000 }).toBe("undone");
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: dead.id, generation: 1n });
    expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [dead.id], running: [dead.id] });
    expect((await bench.books(pod.id)).claims).toHaveLength(1);
    expect(bench.hosts.at(to.id, pod.vmid)).toBeUndefined();
  });

  test("keeps its pod too when it has fallen silent again before the switch", async () => {
    const [dead, to] = two(await bench.nodes(2));
    const pod = await bench.podOn(dead);
    await beingRestored(dead, to, pod);
    // The restore takes an hour, and the host was there for some minutes of it.
    await bench.db.system.execute(
      sql`UPDATE node_drains SET started_at = now() - interval '1 hour' WHERE node_id = ${dead.id}`,
    );
    await vanish(bench, dead, false);
    bench.hosts.away.delete(to.id);
    await expect.poll(async () => await moveState(pod), { timeout: 60_000 }).toBe("undone");
    expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [dead.id], running: [dead.id] });
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: dead.id, generation: 1n });
  });

  test("ends its evacuation: what has changed hands stays so, what has not is given back at once", async () => {
    const [dead, to] = two(await bench.nodes(2));
    const pods = [await bench.podOn(dead), await bench.podOn(dead), await bench.podOn(dead)];
    for (const pod of pods) await backUp(bench, pod, dead, 60);
    await vanish(bench, dead);
    let reads = 0;
    bench.hosts.script = (command) => {
      if (command.op?.$case === "verifyBackup" && ++reads === 2) bench.hosts.away.add(to.id);
      return undefined;
    };
    await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, { ...order, maxParallel: 1 });
    await expect
      .poll(
        async () => {
          await drains.drive();
          return [reads, ...(await openCommands(to)).map(({ op }) => op)];
        },
        { timeout: 60_000, interval: 20 },
      )
      .toEqual([2, "restore"]);
    await comeBack(bench, dead);
    bench.hosts.away.clear();
    const end = await drains.driveToEnd(dead);
    expect(end).toMatchObject({
      state: "cancelled",
      counts: { moved: 1, left: 2 },
      outcome: "The host is back and keeps its pods; 1 pod had changed hands before.",
    });
    const kept = (end["pods"] as { state: string }[]).filter(({ state }) => state === "left");
    expect(kept).toMatchObject([{ blocker: { code: "NODE_RETURNED" } }, { blocker: { code: "NODE_RETURNED" } }]);
    // Nothing more was begun, and no customer waits.
    expect(bench.hosts.carriedOut.filter((one) => one === `restore@${to.name}`).length).toBeLessThanOrEqual(2);
    const places = await Promise.all(pods.map(async ({ id }) => (await bench.podNow(id)).nodeId));
    expect(places.filter((place) => place === dead.id)).toHaveLength(2);
    expect(places.filter((place) => place === to.id)).toHaveLength(1);
    const busy = await bench.db.system.query(sql`
      SELECT FROM cloud_pod_provisioning_tasks WHERE tenant_id = ${bench.tenantId} AND state NOT IN ('succeeded', 'failed', 'cancelled')`);
    expect(busy).toEqual([]);
    const events = await drains.call("GET", `/api/nodes/${dead.name}/events?limit=1`);
    expect(events.json).toMatchObject({ data: [{ kind: "EVACUATION_ENDED" }] });
  });
});

/** What a host was told and has not answered. */
async function openCommands(node: BenchNode): Promise<{ op: string }[]> {
  return await bench.db.system.query(
    sql`SELECT op FROM node_commands WHERE node_id = ${node.id} AND finished_at IS NULL`,
  );
}

/** The host is given up, and its pod's backup is being restored on another one. */
async function beingRestored(dead: BenchNode, to: BenchNode, pod: Pod): Promise<void> {
  await backUp(bench, pod, dead, 60);
  await vanish(bench, dead, false);
  bench.hosts.script = (command) => {
    if (command.op?.$case === "verifyBackup") bench.hosts.away.add(to.id);
    return undefined;
  };
  await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, order);
  await drains.drive();
  await begun(to, "restore");
}

async function begun(node: BenchNode, op: string): Promise<void> {
  await expect
    .poll(async () => (await openCommands(node)).map((open) => open.op), { timeout: 60_000, interval: 20 })
    .toEqual([op]);
}

test("work that waited for the host ends by its own rules", async () => {
  const [dead, to] = two(await bench.nodes(2));
  const [pod, leaving] = [await bench.podOn(dead), await bench.podOn(dead)];
  await backUp(bench, pod, dead, 60);
  bench.hosts.away.add(dead.id);
  const stop = await drains.call("POST", `/api/cloud-pods/admin/${pod.id}/migrate`, { reason: "before it burns" });
  expect(stop.status).toBe(202);
  await bench.destroy(leaving);
  await vanish(bench, dead);
  await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, order);
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { moved: 1, gone: 1 } });
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: to.id });
  expect((await bench.podNow(leaving.id)).status).toBe("deleted");

  // Whoever has read the evacuation before its end answers for the host no more, lost as it still is.
  await bench.db.system.execute(sql`
    INSERT INTO node_commands (id, node_id, op, command, fleet_epoch, generation, revision) VALUES (${newId()}, ${dead.id}, 'inspect', '{}', 1, 1, 1)`);
  expect(await answerForLostHost(bench.db.system, dead.id)).toBe(0);
  await bench.db.system.execute(
    sql`UPDATE node_drains SET state = 'moving', finished_at = NULL WHERE node_id = ${dead.id}`,
  );
  const seen = (ago: string) =>
    bench.db.system.execute(
      sql`UPDATE node_status SET session_seen_at = now() - ${ago}::interval WHERE node_id = ${dead.id}`,
    );
  await seen("1 s");
  expect(await answerForLostHost(bench.db.system, dead.id)).toBe(0);
  await seen("1 hour");
  expect(await answerForLostHost(bench.db.system, dead.id)).toBe(1);
});

test("in a cluster the dead member's entry is taken over, and a shared disk loses nothing", async () => {
  const [dead, to] = two(await bench.nodes(2, { cluster: true }));
  const shared = newId();
  await bench.db.system.execute(sql`
    INSERT INTO storages (id, cluster_id, name, type, shared, total_gb) SELECT ${shared}, cluster_id, 'ceph', 'rbd', true, 40 FROM nodes WHERE id = ${dead.id}`);
  await bench.db.system.execute(
    sql`INSERT INTO node_storages (node_id, storage_id) VALUES (${dead.id}, ${shared}), (${to.id}, ${shared})`,
  );
  await bench.db.system.execute(sql`UPDATE nodes SET default_storage = 'ceph' WHERE id IN (${dead.id}, ${to.id})`);
  const pod = await bench.podOn(dead);
  bench.hosts.write(pod.vmid);
  await vanish(bench, dead);
  expect((await drains.call("POST", `/api/nodes/${dead.name}/evacuate?dryRun=true`, order)).json).toMatchObject({
    moves: [{ strategy: "take-over", archive: null, target: { node: to.name } }],
  });
  await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, order);
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { moved: 1 } });
  expect(bench.hosts.at(to.id, pod.vmid)).toMatchObject({ written: 2, power: Power.POWER_RUNNING });
  expect(bench.hosts.copies(pod.vmid).here).toEqual([to.id]);
  const [storage] = await bench.db.system.query(sql`SELECT allocated_gb AS gb FROM storages WHERE id = ${shared}`);
  expect(storage).toEqual({ gb: pod.diskGb });
});

test("in a cluster no archive takes the place of a volume that it does not hold, and nothing is called lost", async () => {
  const [dead, to] = two(await bench.nodes(2, { cluster: true }));
  const pod = await bench.podOn(dead);
  await backUp(bench, pod, dead, 60);
  await bench.giveVolumes(dead, pod, ["mp0"]);
  // Hosts of other tests would see the archive too.
  await bench.db.system.execute(sql`
    UPDATE node_storages SET available = false WHERE node_id NOT IN (${dead.id}, ${to.id})`);
  await vanish(bench, dead);
  const where = `/api/nodes/${dead.name}/evacuate`;
  const blocker = { code: "MORE_THAN_A_POD", message: expect.stringContaining("mp0 (seen at ") };
  expect((await drains.call("POST", `${where}?dryRun=true`, order)).json).toMatchObject({
    moves: [{ target: null, blocker }],
  });
  await drains.call("POST", where, { ...order, onNoBackup: "mark-lost" });
  const end = await drains.driveToEnd(dead);
  expect(end).toMatchObject({ state: "incomplete", counts: { blocked: 1 }, pods: [{ blocker }] });
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: dead.id, status: "active" });
  // Without it the entry is a pod again.
  await bench.giveVolumes(dead, pod, []);
  expect((await drains.call("POST", `${where}?dryRun=true`, order)).json).toMatchObject({
    moves: [{ target: { node: to.name }, strategy: "take-over", blocker: null }],
  });
});

async function moveState(pod: Pod): Promise<string | undefined> {
  const [row] = await bench.db.system.query<{ state: string }>(
    sql`SELECT state FROM cloud_pod_moves WHERE pod_id = ${pod.id} ORDER BY id DESC LIMIT 1`,
  );
  return row?.state;
}

function two(nodes: readonly BenchNode[]): [BenchNode, BenchNode] {
  const [a = noHost(), b = noHost()] = nodes;
  return [a, b];
}

function noHost(): never {
  throw new Error("no host");
}
