import { newId } from "@cloudpods/shared/ids";
import { expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import { selectDrains, type Drain } from "./drain.ts";
import { claimForDrain } from "./place-drain-pod.ts";
import { enlistPods } from "./read-drain-facts.ts";

const bench = new MoveWorkbench();
const drains = drainsOf(bench);

/** A cluster whose disks all members see, without a storage for archives; the guest of its pod does not shut down. */
async function deafGuest(): Promise<{ from: BenchNode; to: BenchNode; pod: Pod }> {
  const [from, to] = await bench.nodes(2, { cluster: true, backups: false });
  if (from === undefined || to === undefined) throw new Error("two hosts");
  const shared = newId();
  await bench.db.system.execute(sql`
    INSERT INTO storages (id, cluster_id, name, type, shared, total_gb) SELECT ${shared}, cluster_id, 'ceph', 'rbd', true, 300 FROM nodes WHERE id = ${from.id}`);
  await bench.db.system.execute(
    sql`INSERT INTO node_storages (node_id, storage_id) VALUES (${from.id}, ${shared}), (${to.id}, ${shared})`,
  );
  await bench.db.system.execute(sql`UPDATE nodes SET default_storage = 'ceph' WHERE id IN (${from.id}, ${to.id})`);
  const pod = await bench.podOn(from);
  bench.hosts.script = ({ op, nodeId, vmid }) =>
    op?.$case === "migrate" && bench.hosts.at(nodeId, vmid)?.power === 1
      ? { state: "failed", errorCode: "SHUTDOWN_TIMEOUT", retryable: true }
      : undefined;
  return { from, to, pod };
}

const startDrain = (from: BenchNode, onDeadline: "leave" | "stop-and-restore") =>
  drains.call("POST", `/api/nodes/${from.name}/drain`, { reason: "memory is replaced", onDeadline });
const timeIsUp = (from: BenchNode) =>
  bench.db.system.execute(sql`UPDATE node_drains SET deadline_at = now() WHERE node_id = ${from.id}`);

/** Its place is claimed and its move has not begun when time is up. */
async function lateWithPlace(from: BenchNode, pod: Pod): Promise<void> {
  await startDrain(from, "stop-and-restore");
  const [drain] = await bench.db.system.query<Drain>(sql`${selectDrains} WHERE d.node_id = ${from.id}`);
  if (drain === undefined) throw new Error("no drain");
  await bench.inSystem(async (tx) => {
    await enlistPods(tx, drain);
    await claimForDrain(tx, bench.fleet, drain, pod.id);
  });
  await timeIsUp(from);
}

test("when time is up a pod that holds a place moves with its shared disk, stopped by force", async () => {
  const { from, to, pod } = await deafGuest();
  await lateWithPlace(from, pod);
  const end = await drains.driveToEnd(from);
  expect(end).toMatchObject({ state: "drained", counts: { moved: 1 } });
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [to.id], running: [to.id] });
  expect(bench.hosts.at(to.id, pod.vmid)).toMatchObject({ written: 1 });
  expect(bench.hosts.carriedOut.slice(-4)).toEqual([
    `ensurePower@${from.name}`,
    `migrate@${from.name}`,
    `ensureContainer@${to.name}`,
    `ensurePower@${to.name}`,
  ]);
  // It was away from its stop on, not only while Proxmox moved it.
  const away = sql`SELECT extract(epoch FROM running_at - stopped_at) * 1000 - downtime_ms < 1 AS "isWhole" FROM cloud_pod_moves WHERE pod_id = ${pod.id}`;
  expect(await bench.db.system.query(away)).toEqual([{ isWhole: true }]);
});

test("one that tries in vain until then is stopped by force in its next try", async () => {
  const { from, to, pod } = await deafGuest();
  await startDrain(from, "stop-and-restore");
  await drains.drive();
  const failed = sql`SELECT FROM node_commands WHERE pod_id = ${pod.id} AND op = 'migrate' AND error_code = 'SHUTDOWN_TIMEOUT'`;
  await expect.poll(async () => (await bench.db.system.query(failed)).length, { timeout: 60_000 }).toBeGreaterThan(0);
  expect(bench.hosts.copies(pod.vmid).running).toEqual([from.id]);
  // As if the drain had begun with a deadline that is now.
  await bench.db.system.execute(sql`
    UPDATE cloud_pod_provisioning_tasks SET input = jsonb_set(input, '{forceAfterMs}', '0'), run_after = now() WHERE pod_id = ${pod.id} AND type = 'migrate'`);
  await timeIsUp(from);
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "drained" });
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [to.id], running: [to.id] });
});

test("one that cannot move although it was stopped by force runs again where it was", async () => {
  const { from, pod } = await deafGuest();
  bench.hosts.script = ({ op }) =>
    op?.$case === "migrate" ? { state: "failed", errorCode: "MIGRATION_FAILED", retryable: false } : undefined;
  await lateWithPlace(from, pod);
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "incomplete", counts: { failed: 1 } });
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [from.id], running: [from.id] });
  // Stopped, and started again.
  expect(bench.hosts.carriedOut.slice(-2)).toEqual([`ensurePower@${from.name}`, `ensurePower@${from.name}`]);
});

test("nothing is stopped by force where pods are to be left", async () => {
  const { from, pod } = await deafGuest();
  await startDrain(from, "leave");
  await drains.drive();
  const failed = sql`SELECT FROM node_commands WHERE pod_id = ${pod.id} AND op = 'migrate' AND error_code = 'SHUTDOWN_TIMEOUT'`;
  await expect.poll(async () => (await bench.db.system.query(failed)).length, { timeout: 60_000 }).toBeGreaterThan(0);
  await timeIsUp(from);
  expect(await drains.driveToEnd(from)).toMatchObject({
    state: "incomplete",
    counts: { left: 1 },
    pods: [{ state: "left", target: null, strategy: null }],
  });
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [from.id], running: [from.id] });
});
