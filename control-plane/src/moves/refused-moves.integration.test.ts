import { newId } from "@cloudpods/shared/ids";
import { beforeEach, expect, test } from "vitest";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { sql } from "../platform/sql.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { systemActor } from "../security/actor.ts";
import { requestMove } from "./request-move.ts";
import { reserveMove } from "./reserve-move.ts";

const bench = new MoveWorkbench();
beforeEach(() => {
  bench.work();
});

/** The pod runs where it was, with everything that it wrote, and holds no other place. */
async function expectStays(node: BenchNode, pod: Pod): Promise<void> {
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: node.id, status: "active", desiredPower: "running" });
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [node.id], running: [node.id] });
  expect(bench.hosts.at(node.id, pod.vmid)).toMatchObject({ written: 1 });
  expect((await bench.books(pod.id)).claims).toEqual([expect.objectContaining({ nodeId: node.id, purpose: "home" })]);
}

test("a move is refused to where the pod is, to where nothing leads, where there is no room, and beside other work", async () => {
  const [from, lonely] = twoOf(await bench.nodes(2, { backups: false }));
  const pod = await bench.podOn(from);
  await expect(bench.move(pod, from)).rejects.toMatchObject({ code: "NO_WAY" });
  const message = expect.stringContaining(`${lonely.name} cannot take it: `);
  await expect(bench.move(pod, lonely)).rejects.toMatchObject({ code: "NO_WAY", message });
  const [a, b] = twoOf(await bench.nodes(2));
  await bench.db.system.execute(sql`UPDATE node_capacity SET cpu_reserved = cpu_total WHERE node_id = ${b.id}`);
  const crowded = await bench.podOn(a);
  await expect(bench.move(crowded, b)).rejects.toMatchObject({
    code: "NO_CAPACITY",
    verdict: { rejected: expect.arrayContaining([expect.objectContaining({ nodeId: b.id, filter: "cpu" })]) },
  });
  await bench.db.system.execute(sql`UPDATE node_capacity SET cpu_reserved = 0 WHERE node_id = ${b.id}`);
  bench.hosts.away.add(a.id);
  const task = await bench.move(crowded, b);
  await expect(bench.move(crowded, b)).rejects.toMatchObject({ code: "POD_BUSY" });
  bench.hosts.away.clear();
  expect((await bench.end(task)).state).toBe("succeeded");
  // Where it has failed is a way, but none any more.
  const all = await bench.db.system.query<{ id: string }>(sql`SELECT id FROM nodes`);
  const order = { purpose: "drain", reason: "test", requestedBy: "test", except: all.map(({ id }) => id) } as const;
  const again = bench.inSystem(async (tx) => reserveMove(tx, bench.fleet, await lockPodById(tx, crowded.id), order));
  const failed = "No host is left for it: on each that it can get to its move has failed.";
  await expect(again).rejects.toMatchObject({ code: "NO_WAY", message: failed });
});

test("a target that is missed for a moment is waited for, and the pod runs on meanwhile; one that stays so is none", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  const target = (state: string, since = sql`now()`) =>
    sql`UPDATE node_status SET state = ${state}, state_since = ${since} WHERE node_id = ${to.id}`;
  const who = { actor: systemActor("test"), requestId: newId() };
  /** The target is missed from the request on, before a worker has looked at it. */
  const moveToShaken = async () => {
    const { task } = await bench.inSystem(async (tx) => {
      const asked = await requestMove(tx, bench.fleet, who, await lockPodById(tx, pod.id), {
        targetNodeId: to.id,
        reason: "test",
      });
      await tx.execute(target("degraded"));
      return asked;
    });
    const tried = sql`SELECT FROM cloud_pod_provisioning_tasks WHERE id = ${task.id} AND attempts > 0`;
    await expect.poll(async () => (await bench.db.system.query(tried)).length, { timeout: 60_000 }).toBe(1);
    expect(bench.hosts.copies(pod.vmid).running).toEqual([from.id]);
    expect(bench.hosts.carriedOut).not.toContain(`backup@${from.name}`);
    return task.id;
  };
  const forgotten = await moveToShaken();
  await bench.db.system.execute(target("degraded", sql`now() - interval '2 minutes'`));
  expect(await bench.end(forgotten)).toEqual({ state: "failed", errorCode: "TARGET_NOT_ONLINE" });
  await expectStays(from, pod);
  await bench.db.system.execute(target("online"));
  const waited = await moveToShaken();
  await bench.db.system.execute(target("online"));
  expect(await bench.end(waited)).toEqual({ state: "succeeded", errorCode: null });
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [to.id], running: [to.id] });
});

test("a move is refused of a pod with a snapshot by an archive, which would not hold it; Proxmox takes it along where it can", async () => {
  const snapshot = ["snapshot:before-upgrade"];
  const refusal = { code: "MORE_THAN_A_POD", message: expect.stringContaining("snapshot:before-upgrade (seen at ") };
  const [alone] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(alone);
  await bench.giveVolumes(alone, pod, snapshot);
  await expect(bench.move(pod)).rejects.toMatchObject(refusal);
  const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
  const other = await bench.podOn(from);
  await bench.giveVolumes(from, other, snapshot);
  await expect(bench.move(other, to)).rejects.toMatchObject(refusal);
  await bench.db.system.execute(
    sql`UPDATE storages SET type = 'zfspool' WHERE node_id = ANY(${[from.id, to.id]}::uuid[]) AND holds_root_disks`,
  );
  await bench.db.system.execute(
    sql`UPDATE cloud_pods SET template = 'local:vztmpl/any.tar.zst' WHERE id = ${other.id}`,
  );
  expect((await bench.end(await bench.move(other, to))).state).toBe("succeeded");
  const way = sql`SELECT strategy FROM cloud_pod_moves WHERE pod_id = ${other.id}`;
  expect(await bench.db.system.query(way)).toEqual([{ strategy: "cluster-migrate" }]);
});

test("a move is refused by a host that finds a snapshot which nobody knew of, and nothing is archived instead", async () => {
  const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
  const pod = await bench.podOn(from);
  bench.hosts.script = (command) =>
    command.op?.$case === "migrate"
      ? { state: "failed", errorCode: "SNAPSHOT_NOT_MOVABLE", retryable: false }
      : undefined;
  expect(await bench.end(await bench.move(pod, to))).toEqual({ state: "failed", errorCode: "SNAPSHOT_NOT_MOVABLE" });
  expect(bench.hosts.carriedOut).not.toContain(`backup@${from.name}`);
  await expectStays(from, pod);
});

test.each([
  ["is cordoned", "TARGET_CORDONED", (to: BenchNode) => sql`UPDATE nodes SET schedulable = false WHERE id = ${to.id}`],
  [
    "has lost its quorum",
    "TARGET_WITHOUT_QUORUM",
    (to: BenchNode) => sql`UPDATE node_status SET quorate = false WHERE node_id = ${to.id}`,
  ],
])("a move is refused when its target %s before anything was done", async (_, errorCode, happens) => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  const who = { actor: systemActor("test"), requestId: newId() };
  const locked = await bench.podNow(pod.id);
  const task = await bench.inSystem(async (tx) => {
    const accepted = await requestMove(tx, bench.fleet, who, locked, { targetNodeId: to.id, reason: "test" });
    await tx.execute(happens(to));
    return accepted.task;
  });
  const before = bench.hosts.carriedOut.length;
  expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode });
  expect(bench.hosts.carriedOut).toHaveLength(before);
  await expectStays(from, pod);
});

test("a move is refused of a pod that has its place already because its host is being emptied", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  const order = { purpose: "drain", reason: "test", requestedBy: "test" } as const;
  await bench.inSystem((tx) => reserveMove(tx, bench.fleet, pod, order));
  await expect(bench.move(pod, to)).rejects.toMatchObject({ code: "MOVE_RESERVED" });
});

function twoOf(nodes: readonly BenchNode[]): [BenchNode, BenchNode] {
  const [a, b] = nodes;
  if (a === undefined || b === undefined) throw new Error("two hosts");
  return [a, b];
}
