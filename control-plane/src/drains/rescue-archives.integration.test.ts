import { afterEach, beforeEach, expect, test } from "vitest";
import { openDrainBench, type DrainBench } from "../../../test/support/drain-workbench.ts";
import { backUp, vanish } from "../../../test/support/lost-hosts.ts";
import { MoveWorkbench } from "../../../test/support/move-workbench.ts";
import { sql } from "../platform/sql.ts";

const bench = new MoveWorkbench();
let drains: DrainBench;
beforeEach(async () => {
  bench.work();
  drains = await openDrainBench(bench);
});
afterEach(() => drains.close());

const order = { reason: "the host burnt", confirmFenced: true };

async function hosts() {
  const [dead, to, third] = await bench.nodes(3);
  if (dead === undefined || to === undefined || third === undefined) throw new Error("no host");
  return { dead, to, third, where: `/api/nodes/${dead.name}/evacuate` };
}

const damaged = async (podId: string) =>
  (
    await bench.db.system.query<{ id: string }>(
      sql`SELECT id FROM cloud_pod_backups WHERE pod_id = ${podId} AND damaged_at IS NOT NULL ORDER BY started_at`,
    )
  ).map(({ id }) => id);

test("an evacuation goes on to older backups when newer ones are gone or cannot be read, and marks those", async () => {
  const { dead, where } = await hosts();
  const pod = await bench.podOn(dead);
  const ages = [600, 500, 400, 300, 200, 100];
  const backups: string[] = [];
  for (const age of ages) backups.push(await backUp(bench, pod, dead, age));
  const volume = (id: string | undefined) => `backups:backup/${id}.tar.zst`;
  const [good, ...bad] = backups;
  // More than a pod has tries for reasons of its targets.
  for (const id of bad.slice(1)) bench.hosts.archives.delete(volume(id));
  bench.hosts.unreadable.add(volume(bad[0]));
  await vanish(bench, dead);
  await drains.call("POST", where, order);
  const end = await drains.driveToEnd(dead);
  expect(end).toMatchObject({ state: "drained", counts: { moved: 1 } });
  expect(await damaged(pod.id)).toEqual(bad);
  const moved = await bench.podNow(pod.id);
  expect(moved).toMatchObject({ status: "active" });
  expect(bench.hosts.at(moved.nodeId ?? "", pod.vmid)).toMatchObject({ written: 1 });
  const [last] = await bench.db.system.query(
    sql`SELECT archive_volume_id AS volume FROM cloud_pod_moves WHERE pod_id = ${pod.id} ORDER BY id DESC LIMIT 1`,
  );
  expect(last).toEqual({ volume: volume(good) });
});

test("a target that alone does not see the archive condemns no backup, and another target is taken", async () => {
  const { dead, to, third, where } = await hosts();
  const pod = await bench.podOn(dead);
  await backUp(bench, pod, dead, 100);
  const plan = async () => {
    const { json } = await drains.call("POST", `${where}?dryRun=true`, order);
    return (json["moves"] as { target: { nodeId: string } | null }[])[0]?.target?.nodeId ?? "";
  };
  await vanish(bench, dead);
  const first = await plan();
  bench.hosts.blind.add(first);
  await drains.call("POST", where, order);
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { moved: 1 } });
  expect(await damaged(pod.id)).toEqual([]);
  expect((await bench.podNow(pod.id)).nodeId).toBe(first === to.id ? third.id : to.id);
});
