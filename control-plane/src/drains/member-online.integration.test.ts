import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { vanish } from "../../../test/support/lost-hosts.ts";
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
