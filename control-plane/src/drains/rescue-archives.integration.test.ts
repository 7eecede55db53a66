import { newId } from "@cloudpods/shared/ids";
import { expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { backUp, vanish } from "../../../test/support/lost-hosts.ts";
import { BackupWorkbench } from "../../../test/support/backup-workbench.ts";
import { sql } from "../platform/sql.ts";

const bench = new BackupWorkbench();
const drains = drainsOf(bench);

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

test("no pod is called lost for backups that no host sees at the moment", async () => {
  const { dead, where } = await hosts();
  const [pod, local, bare] = [await bench.podOn(dead), await bench.podOn(dead), await bench.podOn(dead)];
  const id = await backUp(bench, pod, dead, 100);
  // What was kept on a disk of the dead host burnt with it.
  const burnt = await backUp(bench, local, dead, 100);
  await bench.db.system.execute(sql`
    WITH made AS (INSERT INTO storages (id, node_id, name, type, shared, holds_backups, total_gb)
      VALUES (gen_random_uuid(), ${dead.id}, 'local-backups', 'dir', false, true, 100) RETURNING id)
    UPDATE cloud_pod_backups SET storage_id = (SELECT id FROM made) WHERE id = ${burnt}`);
  const storageIsThere = (is: boolean) =>
    bench.db.system.execute(sql`
      UPDATE node_storages SET available = ${is} WHERE storage_id IN (SELECT id FROM storages WHERE holds_backups)`);
  await storageIsThere(false);
  await vanish(bench, dead);
  const lose = { ...order, onNoBackup: "mark-lost" };
  const { json } = await drains.call("POST", `${where}?dryRun=true`, lose);
  const blockers = (json["moves"] as { podId: string; blocker: { code: string } }[]).map(({ podId, blocker }) => [
    podId,
    blocker.code,
  ]);
  expect(Object.fromEntries(blockers)).toEqual({
    [pod.id]: "BACKUP_NOT_REACHABLE",
    [local.id]: "NO_BACKUP",
    [bare.id]: "NO_BACKUP",
  });
  await drains.call("POST", where, lose);
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "incomplete", counts: { blocked: 1, lost: 2 } });
  expect(await bench.podNow(pod.id)).toMatchObject({ status: "active", nodeId: dead.id });
  await storageIsThere(true);
  await drains.call("POST", where, lose);
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { moved: 1 } });
  expect((await bench.backupOf(id)).damagedAt).toBeNull();
});

test("a pod whose backups are found gone is kept once more before it is called lost", async () => {
  const { dead, where } = await hosts();
  const pod = await bench.podOn(dead);
  await backUp(bench, pod, dead, 100);
  bench.hosts.archives.clear();
  await vanish(bench, dead);
  const lose = { ...order, onNoBackup: "mark-lost" };
  await drains.call("POST", where, lose);
  const end = await drains.driveToEnd(dead);
  expect(end).toMatchObject({ state: "incomplete", pods: [{ state: "blocked", blocker: { code: "BACKUP_DAMAGED" } }] });
  expect(await bench.podNow(pod.id)).toMatchObject({ status: "active", nodeId: dead.id });
  await drains.call("POST", where, lose);
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { lost: 1 } });
});

test("no pod is called lost for a disk of its cluster that no member sees at the moment", async () => {
  const [dead, to] = await bench.nodes(2, { cluster: true, backups: false });
  if (dead === undefined || to === undefined) throw new Error("no host");
  const shared = newId();
  await bench.db.system.execute(sql`
    INSERT INTO storages (id, cluster_id, name, type, shared, total_gb) SELECT ${shared}, cluster_id, 'ceph', 'rbd', true, 40 FROM nodes WHERE id = ${dead.id}`);
  await bench.db.system.execute(
    sql`INSERT INTO node_storages (node_id, storage_id) VALUES (${dead.id}, ${shared}), (${to.id}, ${shared})`,
  );
  await bench.db.system.execute(sql`UPDATE nodes SET default_storage = 'ceph' WHERE id IN (${dead.id}, ${to.id})`);
  const pod = await bench.podOn(dead);
  await bench.db.system.execute(sql`UPDATE node_storages SET available = false WHERE storage_id = ${shared}`);
  await vanish(bench, dead);
  const where = `/api/nodes/${dead.name}/evacuate`;
  await drains.call("POST", where, { ...order, onNoBackup: "mark-lost" });
  const end = await drains.driveToEnd(dead);
  expect(end).toMatchObject({ state: "incomplete", pods: [{ blocker: { code: "DISK_NOT_REACHABLE" } }] });
  expect(await bench.podNow(pod.id)).toMatchObject({ status: "active", nodeId: dead.id });
});
