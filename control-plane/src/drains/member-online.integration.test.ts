import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { backUp, vanish } from "../../../test/support/lost-hosts.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import type { FleetEnd } from "../../../test/support/scripted-fleet.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";

/*
 * We hear nothing of a member, and its cluster does: its agent hangs or only its way to us is cut. Its containers run, and
 * the other members take nothing from it.
 */
const bench = new MoveWorkbench();
const drains = drainsOf(bench);

const order = { reason: "it is silent", confirmFenced: true };
const memberOnline: FleetEnd = { state: "failed", errorCode: "MEMBER_ONLINE", retryable: false };

/** Two members with a disk that both see, and a pod on the first. */
async function cluster(): Promise<{ silent: BenchNode; other: BenchNode; pod: Pod }> {
  const [silent, other] = await bench.nodes(2, { cluster: true });
  if (silent === undefined || other === undefined) throw new Error("no host");
  const shared = newId();
  await bench.db.system.execute(sql`
    INSERT INTO storages (id, cluster_id, name, type, shared, total_gb) SELECT ${shared}, cluster_id, 'ceph', 'rbd', true, 40 FROM nodes WHERE id = ${silent.id}`);
  await bench.db.system.execute(
    sql`INSERT INTO node_storages (node_id, storage_id) VALUES (${silent.id}, ${shared}), (${other.id}, ${shared})`,
  );
  await bench.db.system.execute(sql`UPDATE nodes SET default_storage = 'ceph' WHERE id IN (${silent.id}, ${other.id})`);
  return { silent, other, pod: await bench.podOn(silent) };
}

test("a member that its cluster sees keeps its pods: nothing changes hands", async () => {
  const { silent, pod } = await cluster();
  await vanish(bench, silent, false);
  bench.hosts.script = ({ op }) => (op?.$case === "inspect" || op?.$case === "restore" ? memberOnline : undefined);
  await drains.call("POST", `/api/nodes/${silent.name}/evacuate`, order);
  expect(await drains.driveToEnd(silent)).toMatchObject({
    state: "incomplete",
    counts: { failed: 1 },
    pods: [{ blocker: { code: "MEMBER_ONLINE" } }],
  });
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: silent.id, generation: 1n, status: "active" });
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [silent.id], running: [silent.id] });
  expect((await bench.books(pod.id)).claims).toEqual([{ nodeId: silent.id, generation: 1n, purpose: "home" }]);
  expect(
    await bench.db.system.query(sql`SELECT FROM node_commands WHERE pod_id = ${pod.id} AND op = 'restore'`),
  ).toEqual([]);
});

test("a member that its cluster sees keeps its pods also where a host outside could restore them", async () => {
  const [silent, member] = await bench.nodes(2, { cluster: true });
  // The best place by far, were nobody else asked.
  const [outside] = await bench.nodes(1);
  if (silent === undefined || member === undefined || outside === undefined) throw new Error("no host");
  const pods = [await bench.podOn(silent), await bench.podOn(silent)];
  for (const pod of pods) await backUp(bench, pod, silent, 600);
  await bench.podOn(member);
  await vanish(bench, silent, false);
  bench.hosts.script = ({ op }) => (op?.$case === "inspect" ? memberOnline : undefined);
  const where = `/api/nodes/${silent.name}/evacuate`;
  const { json } = await drains.call("POST", `${where}?dryRun=true`, order);
  expect(json["moves"]).toMatchObject(pods.map(() => ({ strategy: "take-over", target: { node: member.name } })));
  await drains.call("POST", where, { ...order, maxParallel: 1 });
  expect(await drains.driveToEnd(silent)).toMatchObject({
    state: "incomplete",
    counts: { failed: 2 },
    pods: pods.map(() => ({
      blocker: { code: "MEMBER_ONLINE", message: expect.stringMatching(/ was seen .* at 20.+Z, .* Fence it/) },
    })),
  });
  expect(await bench.db.system.query(sql`SELECT FROM node_commands WHERE op = 'restore'`)).toEqual([]);
  for (const { vmid } of pods) expect(bench.hosts.copies(vmid)).toEqual({ here: [silent.id], running: [silent.id] });
  // Whoever has fenced it meanwhile asks anew; where no member takes them the pods go to others.
  bench.hosts.script = () => undefined;
  await vanish(bench, silent);
  await bench.db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE id = ${member.id}`);
  await drains.call("POST", where, order);
  expect(await drains.driveToEnd(silent)).toMatchObject({
    state: "drained",
    pods: pods.map(() => ({ state: "moved", target: outside.name, strategy: "restore-newest" })),
  });
});

test("no pod is called lost of a member that its cluster sees, once anybody was asked", async () => {
  const [silent, member] = await bench.nodes(2, { cluster: true });
  if (silent === undefined || member === undefined) throw new Error("no host");
  const [bare, saved] = [await bench.podOn(silent), await bench.podOn(silent)];
  await backUp(bench, saved, silent, 60);
  await vanish(bench, silent, false);
  bench.hosts.script = ({ op }) => (op?.$case === "inspect" ? memberOnline : undefined);
  const where = `/api/nodes/${silent.name}/evacuate`;
  await drains.call("POST", where, { ...order, onNoBackup: "mark-lost" });
  expect(await drains.driveToEnd(silent)).toMatchObject({ state: "incomplete", counts: { failed: 2 } });
  for (const { id } of [bare, saved])
    expect(await bench.podNow(id)).toMatchObject({ nodeId: silent.id, status: "active" });
  // It is fenced now.
  bench.hosts.script = () => undefined;
  await vanish(bench, silent);
  await drains.call("POST", where, { ...order, onNoBackup: "mark-lost" });
  expect(await drains.driveToEnd(silent)).toMatchObject({ state: "drained", counts: { lost: 1, moved: 1 } });
});

test("a member that is there again right after that is no success: the pod is said to have failed", async () => {
  const { silent, other, pod } = await cluster();
  await vanish(bench, silent);
  bench.hosts.script = ({ op }) => (op?.$case === "restore" ? memberOnline : undefined);
  await drains.call("POST", `/api/nodes/${silent.name}/evacuate`, order);
  expect(await drains.driveToEnd(silent)).toMatchObject({
    state: "incomplete",
    counts: { failed: 1 },
    pods: [{ blocker: { code: "MEMBER_ONLINE", message: expect.stringContaining(other.name) } }],
  });
  expect(bench.hosts.at(silent.id, pod.vmid)?.power).toBe(Power.POWER_STOPPED);
});
