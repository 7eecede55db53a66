import { describe, expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";

const bench = new MoveWorkbench();
const drains = drainsOf(bench);

const order = { reason: "memory is replaced", maxParallel: 2 };
const ways = [
  ["migrate", true],
  ["backup", false],
] as const;

/** Hosts between which a pod goes by `op`. */
async function hosts(isCluster: boolean): Promise<{ from: BenchNode; to: BenchNode; pod: Pod }> {
  const [from, to] = await bench.nodes(2, { cluster: isCluster });
  if (from === undefined || to === undefined) throw new Error("two hosts");
  return { from, to, pod: await bench.podOn(from) };
}

/** The command of a move's first step that its host has not answered, once there is one. */
async function asked(pod: Pod, op: string): Promise<string> {
  const open = sql`SELECT id FROM node_commands WHERE pod_id = ${pod.id} AND op = ${op} AND finished_at IS NULL`;
  let rows: { id: string }[] = [];
  await expect
    .poll(async () => (rows = await bench.db.system.query<{ id: string }>(open)).length, { timeout: 60_000 })
    .toBe(1);
  return rows[0]?.id ?? "";
}

async function expectLeftRunning(pod: Pod, from: BenchNode): Promise<void> {
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: from.id, desiredPower: "running" });
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [from.id], running: [from.id] });
  expect((await bench.books(pod.id)).claims).toEqual([expect.objectContaining({ nodeId: from.id, purpose: "home" })]);
}

/** Begins a drain of a host that does not take its commands up. */
async function drainOfSilent(from: BenchNode, pod: Pod, op: string): Promise<string> {
  bench.hosts.away.add(from.id);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  await drains.drive();
  return await asked(pod, op);
}

describe.each(ways)("a move whose %s has not begun", (op, isCluster) => {
  test("ends with its drain, although the host does not answer at all", async () => {
    const { from, pod } = await hosts(isCluster);
    await drainOfSilent(from, pod, op);
    await drains.call("DELETE", `/api/nodes/${from.name}/drain`);
    expect(await drains.driveToEnd(from)).toMatchObject({ state: "cancelled", counts: { left: 1 } });
    bench.hosts.away.clear();
    await expectLeftRunning(pod, from);
    expect(bench.hosts.carriedOut).not.toContain(`${op}@${from.name}`);
  });

  test("ends when time is up and pods are to be left", async () => {
    const { from, pod } = await hosts(isCluster);
    await drainOfSilent(from, pod, op);
    await bench.db.system.execute(sql`UPDATE node_drains SET deadline_at = now() WHERE node_id = ${from.id}`);
    expect(await drains.driveToEnd(from)).toMatchObject({ state: "incomplete", counts: { left: 1 } });
    bench.hosts.away.clear();
    await expectLeftRunning(pod, from);
  });

  test("is taken back by the host that has accepted it", async () => {
    const { from, pod } = await hosts(isCluster);
    const id = await drainOfSilent(from, pod, op);
    await bench.db.system.execute(sql`UPDATE node_commands SET state = 'accepted', sent_at = now() WHERE id = ${id}`);
    await drains.call("DELETE", `/api/nodes/${from.name}/drain`);
    await drains.drive();
    const told = sql`SELECT command->'cancelCommand'->>'commandId' AS id FROM node_commands WHERE pod_id = ${pod.id} AND op = 'cancel_command'`;
    expect(await bench.db.system.query(told)).toEqual([{ id }]);
    bench.hosts.away.clear();
    await bench.db.system.execute(
      sql`UPDATE node_commands SET state = 'cancelled', error_code = 'CANCELLED', finished_at = now() WHERE id = ${id}`,
    );
    expect(await drains.driveToEnd(from)).toMatchObject({ state: "cancelled", counts: { left: 1 } });
    await expectLeftRunning(pod, from);
  });

  test("goes on once its host has said that it stops the pod", async () => {
    const { from, to, pod } = await hosts(isCluster);
    const id = await drainOfSilent(from, pod, op);
    await bench.db.system.execute(sql`UPDATE node_commands SET state = 'running' WHERE id = ${id}`);
    await drains.call("DELETE", `/api/nodes/${from.name}/drain`);
    await drains.drive();
    await bench.db.system.execute(sql`UPDATE node_commands SET state = 'pending' WHERE id = ${id}`);
    bench.hosts.away.clear();
    await expect.poll(async () => (await bench.podNow(pod.id)).nodeId, { timeout: 60_000 }).toBe(to.id);
    expect(await drains.driveToEnd(from)).toMatchObject({ state: "cancelled", counts: { moved: 1 } });
  });

  test.each([
    ["is cordoned", (to: BenchNode) => sql`UPDATE nodes SET schedulable = false WHERE id = ${to.id}`],
    ["loses its quorum", (to: BenchNode) => sql`UPDATE node_status SET quorate = false WHERE node_id = ${to.id}`],
  ])("does not go to a host that %s meanwhile", async (_, happens) => {
    const { from, to, pod } = await hosts(isCluster);
    await drainOfSilent(from, pod, op);
    await bench.db.system.execute(happens(to));
    await bench.db.system.execute(
      sql`UPDATE cloud_pod_provisioning_tasks SET run_after = now() WHERE pod_id = ${pod.id}`,
    );
    const undone = sql`SELECT FROM cloud_pod_moves WHERE pod_id = ${pod.id} AND state = 'undone'`;
    await expect.poll(async () => (await bench.db.system.query(undone)).length, { timeout: 60_000 }).toBe(1);
    bench.hosts.away.clear();
    await drains.call("DELETE", `/api/nodes/${from.name}/drain`);
    expect(await drains.driveToEnd(from)).toMatchObject({ state: "cancelled" });
    await expectLeftRunning(pod, from);
  });

  test("is not begun again when its drain is cancelled between two tries", async () => {
    const { from, pod } = await hosts(isCluster);
    let tries = 0;
    bench.hosts.script = (command) => {
      if (command.op?.$case !== op) return undefined;
      tries += 1;
      return { state: "failed", errorCode: "LOCKED", retryable: true };
    };
    await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
    await drains.drive();
    // However slowly this is noticed, the pause is not over when it is.
    const pausing = sql`
      UPDATE cloud_pod_provisioning_tasks SET run_after = now() + interval '1 hour'
      WHERE pod_id = ${pod.id} AND state = 'running' AND lease_until IS NULL AND command_id IS NULL AND attempts > 0`;
    await expect.poll(() => bench.db.system.execute(pausing), { timeout: 60_000 }).toBe(1);
    const triesBefore = tries;
    await drains.call("DELETE", `/api/nodes/${from.name}/drain`);
    expect(await drains.driveToEnd(from)).toMatchObject({ state: "cancelled", counts: { left: 1 } });
    expect(tries).toBe(triesBefore);
    await expectLeftRunning(pod, from);
  });
});
