import { pino } from "pino";
import { expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { MoveWorkbench } from "../../../test/support/move-workbench.ts";
import { backUp, comeBack, vanish } from "../../../test/support/lost-hosts.ts";
import { createFleetView } from "../scheduling/fleet-view.ts";
import { clearLeftCopies } from "../moves/left-copies.ts";
import { sql } from "../platform/sql.ts";

const bench = new MoveWorkbench();
const drains = drainsOf(bench);

test("a host is not drained as long as a copy of a pod that has left may be on it", async () => {
  const [from, to] = await bench.nodes(2);
  if (from === undefined || to === undefined) throw new Error("two hosts");
  const pod = await bench.podOn(from);
  const setState = (state: string) =>
    bench.db.system.execute(
      sql`UPDATE node_status SET state = ${state}, session_connected = ${state === "online"} WHERE node_id = ${from.id}`,
    );
  // It falls silent when its pod is on its way.
  bench.hosts.script = (command) => {
    if (command.op?.$case === "restore") bench.hosts.away.add(from.id);
    return undefined;
  };
  await drains.call("POST", `/api/nodes/${from.name}/drain`, { reason: "memory is replaced" });
  await drains.drive();
  await setState("offline");
  const seen = async () => {
    await drains.drive();
    return (await drains.call("GET", `/api/nodes/${from.name}/drain`)).json;
  };
  await expect.poll(async () => (await seen())["counts"], { timeout: 60_000 }).toEqual({ moved: 1 });
  expect(await seen()).toMatchObject({
    state: "moving",
    finishedAt: null,
    percent: 99,
    waitsFor: `${from.name} has yet to say that nothing is left there of shop (${pod.vmid}); it is offline.`,
  });
  expect(bench.hosts.copies(pod.vmid).running).toEqual([to.id]);
  await setState("online");
  bench.hosts.away.clear();
  await expect
    .poll(
      async () => {
        await clearLeftCopies({ db: bench.db.system, log: pino({ level: "silent" }) });
        return (await bench.books(pod.id)).claims.length;
      },
      { timeout: 60_000, interval: 20 },
    )
    .toBe(1);
  expect(await drains.driveToEnd(from)).toMatchObject({
    state: "drained",
    percent: 100,
    waitsFor: null,
    counts: { moved: 1 },
  });
});

test("a drain whose host falls silent before its pods have left says so", async () => {
  const [from] = await bench.nodes(2);
  if (from === undefined) throw new Error("two hosts");
  await bench.podOn(from);
  expect((await drains.call("GET", `/api/nodes/${from.name}/drain`)).json).toMatchObject({
    error: "NO_DRAIN",
    detail: "The node was never drained or evacuated.",
  });
  bench.hosts.away.add(from.id);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, { reason: "memory is replaced" });
  await drains.drive();
  const state = (name: string) =>
    bench.db.system.execute(sql`UPDATE node_status SET state = ${name} WHERE node_id = ${from.id}`);
  const waitsFor = async () => (await drains.call("GET", `/api/nodes/${from.name}/drain`)).json["waitsFor"];
  expect(await waitsFor()).toBeNull();
  await state("offline");
  expect(await waitsFor()).toBe(
    `${from.name} is offline: what it has to do itself waits until it is back. If it is gone for good, evacuate it.`,
  );
  await state("online");
  bench.hosts.away.clear();
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "drained", waitsFor: null });
});

test("an evacuation that waits for a place says so, and goes on when there is one", async () => {
  const [dead, to] = await bench.nodes(2);
  if (dead === undefined || to === undefined) throw new Error("two hosts");
  await backUp(bench, await bench.podOn(dead), dead, 60);
  await vanish(bench, dead);
  const open = (isOpen: boolean) =>
    bench.db.system.execute(sql`UPDATE nodes SET schedulable = ${isOpen} WHERE id = ${to.id}`);
  await open(false);
  await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, { reason: "it burnt", confirmFenced: true });
  await drains.drive();
  expect((await drains.call("GET", `/api/nodes/${dead.name}/drain`)).json).toMatchObject({
    state: "moving",
    counts: { blocked: 1 },
    waitsFor: "1 pod has no place at present; it is looked for again every minute until time is up.",
  });
  await open(true);
  bench.fleet = createFleetView();
  await bench.db.system.execute(
    sql`UPDATE node_drain_pods SET updated_at = updated_at - interval '1 minute' WHERE state = 'blocked'`,
  );
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", waitsFor: null, counts: { moved: 1 } });
});

test("a drain says of how many pods a place is looked for again, not of those that never had one", async () => {
  const [from] = await bench.nodes(1);
  // Room for one; the other one has none, and is asked when it has failed there.
  for (const memoryMb of [1_024, 512]) await bench.nodes(1, { size: { cores: 32, memoryMb } });
  if (from === undefined) throw new Error("no host");
  for (let pods = 0; pods < 2; pods += 1) await bench.podOn(from);
  bench.hosts.script = ({ op }) =>
    op?.$case === "backup" ? { state: "failed", errorCode: "STORAGE_FULL", retryable: false } : undefined;
  const where = `/api/nodes/${from.name}/drain`;
  await drains.call("POST", where, { reason: "memory is replaced", onNoCapacity: "partial" });
  const counts = async () => {
    await drains.drive();
    return (await drains.call("GET", where)).json["counts"];
  };
  await expect.poll(counts, { timeout: 60_000, interval: 20 }).toEqual({ blocked: 2 });
  expect((await drains.call("GET", where)).json).toMatchObject({
    state: "moving",
    waitsFor: "1 pod has no place at present; it is looked for again every minute until time is up.",
  });
  await drains.call("DELETE", where);
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "cancelled", waitsFor: null });
});

test("a pod that comes home to a host that was evacuated leaves no room held there for its stale copy", async () => {
  const [home, to] = await bench.nodes(2);
  if (home === undefined || to === undefined) throw new Error("two hosts");
  const pod = await bench.podOn(home);
  await backUp(bench, pod, home, 60);
  await vanish(bench, home);
  await drains.call("POST", `/api/nodes/${home.name}/evacuate`, { reason: "it is silent", confirmFenced: true });
  await drains.driveToEnd(home);
  await comeBack(bench, home);
  await drains.call("POST", `/api/nodes/${home.name}/uncordon`, {});
  const held = async () => {
    await clearLeftCopies({ db: bench.db.system, log: pino({ level: "silent" }) });
    return (await bench.books(pod.id)).claims.map(({ nodeId }) => nodeId).toSorted();
  };
  expect(await held(), "for a time of grace").toEqual([home.id, to.id].toSorted());
  const back = { target: home.name, reason: "home" };
  expect((await drains.call("POST", `/api/cloud-pods/admin/${pod.vmid}/migrate`, back)).status).toBe(202);
  await expect.poll(held, { timeout: 60_000, interval: 20 }).toEqual([home.id]);
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [home.id], running: [home.id] });
});
