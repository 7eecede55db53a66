import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { BackupWorkbench, failing } from "../../../test/support/backup-workbench.ts";
import { untilRung } from "../../../test/support/bell.ts";
import type { BenchNode } from "../../../test/support/move-workbench.ts";
import { standingStill } from "../../../test/support/standing-still.ts";
import { requestMove } from "../moves/request-move.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { destroyPodNow } from "../pods/destroy-pod.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { scalePod } from "../pods/scale-pod.ts";
import { selectBackups, type Backup } from "./backup.ts";
import { readPolicy } from "./backup-policy.ts";
import { collectErrands } from "./collect-errands.ts";
import { deleteBackup } from "./delete-backup.ts";
import { pruneBackups } from "./prune-backups.ts";
import { runSchedules } from "./run-schedules.ts";
import { sendErrands } from "./send-errands.ts";
import { takeBackRetention } from "./take-back-retention.ts";
import { tidyBackups } from "./tidy-backups.ts";

const bench = new BackupWorkbench();
const doors = () => ({ db: bench.db.system, log: pino({ level: "silent" }) });
const dayMs = 86_400_000;

/** Of a pass that stands still between what it has read and what it does. */
const lateDoors = (meanwhile: () => Promise<unknown>) => ({
  ...doors(),
  db: standingStill(bench.db.system, 1, meanwhile),
});
const later = (days: number) => new Date(Date.now() + days * dayMs);
const hints = { workQueued: () => {} };

async function backupsOf(pod: Pod): Promise<Backup[]> {
  return await bench.db.system.query<Backup>(sql`${selectBackups} WHERE b.pod_id = ${pod.id} ORDER BY b.started_at`);
}

async function backedUp(nodes: readonly BenchNode[]): Promise<{ pod: Pod; backupId: string; volumeId: string }> {
  const [node] = nodes;
  if (node === undefined) throw new Error("no host");
  const pod = await bench.podOn(node);
  const { backupId } = await bench.done(bench.backUp(pod));
  const [backup] = await backupsOf(pod);
  return { pod, backupId, volumeId: backup?.volumeId ?? "" };
}

/** Sends what is due and takes over what the hosts answered, until nothing is on its way. */
async function errands(now: Date): Promise<{ pruned: number; damaged: number; failed: number }> {
  const told = { pruned: 0, damaged: 0, failed: 0 };
  await tidyBackups(bench.db.system, now);
  await sendErrands(doors(), now);
  const onTheirWay = sql`SELECT FROM cloud_pod_backups WHERE errand IS NOT NULL AND tenant_id = ${bench.tenantId}`;
  await untilRung("the end of all errands", bench.db.system, async () => {
    const report = await collectErrands(doors(), now);
    for (const key of ["pruned", "damaged", "failed"] as const) told[key] += report[key];
    return (await bench.db.system.query(onTheirWay)).length === 0;
  });
  return told;
}

/** No pod, or none of those, is due for hours: its id says when in the day its turn is, which may be in a second. */
async function noneSoon(which = sql`true`): Promise<void> {
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_backup_policies SET next_at = now() + interval '12 hours' WHERE ${which}`,
  );
}

describe("the schedule", () => {
  test("begins one backup at a time on a host, moves on, and tries again after a failure", async () => {
    const [node] = await bench.nodes(1);
    bench.work();
    if (node === undefined) throw new Error("no host");
    const pods = [await bench.podOn(node), await bench.podOn(node)];
    const run = () => runSchedules({ ...doors(), hints }, new Date());
    await noneSoon();
    expect(await run()).toEqual({ begun: 0, withoutStorage: 0 });
    await bench.db.system.execute(
      sql`UPDATE cloud_pod_backup_policies SET next_at = now() - interval '1 minute' WHERE tenant_id = ${bench.tenantId}`,
    );
    bench.hosts.away.add(node.id);
    const since = new Date();
    expect(await run()).toEqual({ begun: 1, withoutStorage: 0 });
    expect(await run()).toEqual({ begun: 0, withoutStorage: 0 });
    bench.hosts.away.clear();
    const inState = async (wanted: Backup["state"]) =>
      (await Promise.all(pods.map(backupsOf))).flat().filter(({ state }) => state === wanted).length;
    await expect.poll(() => inState("available"), { timeout: 60_000 }).toBe(1);
    await noneSoon(sql`pod_id IN (SELECT pod_id FROM cloud_pod_backups WHERE tenant_id = ${bench.tenantId})`);
    bench.hosts.script = failing("backup", "STORAGE_FULL");
    await expect.poll(run, { timeout: 60_000 }).toEqual({ begun: 1, withoutStorage: 0 });
    await expect.poll(() => inState("failed"), { timeout: 60_000 }).toBe(1);
    const next = await bench.db.system.query<{ soon: boolean }>(sql`
      SELECT next_at < now() + interval '61 minutes' AS soon FROM cloud_pod_backup_policies WHERE tenant_id = ${bench.tenantId} AND next_at > ${since}
      ORDER BY next_at`);
    expect(next[0]?.soon).toBe(true);
    expect(next).toHaveLength(2);
  });

  test("begins one at a time also where two look at once", async () => {
    const [node] = await bench.nodes(1);
    bench.work();
    if (node === undefined) throw new Error("no host");
    const pods = [await bench.podOn(node), await bench.podOn(node)];
    await noneSoon();
    bench.hosts.away.add(node.id);
    const due = (pod: Pod | undefined, minutesAgo: number) =>
      bench.db.system.execute(
        sql`UPDATE cloud_pod_backup_policies SET next_at = now() - ${minutesAgo} * interval '1 minute' WHERE pod_id = ${pod?.id}`,
      );
    await due(pods[0], 2);
    await due(pods[1], 1);
    const late = lateDoors(async () => {
      await due(pods[1], 3);
      expect(await runSchedules({ ...doors(), hints }, new Date())).toEqual({ begun: 1, withoutStorage: 0 });
    });
    expect(await runSchedules({ ...late, hints }, new Date())).toEqual({ begun: 0, withoutStorage: 0 });
    const running = (await Promise.all(pods.map(backupsOf))).flat().filter(({ state }) => state === "running");
    expect(running.map(({ podId }) => podId)).toEqual([pods[1]?.id]);
    await due(pods[0], -600);
  });

  test("puts off a host without a storage for it", async () => {
    const [node] = await bench.nodes(1, { backups: false });
    bench.work();
    if (node === undefined) throw new Error("no host");
    await bench.podOn(node);
    await noneSoon();
    await bench.db.system.execute(
      sql`UPDATE cloud_pod_backup_policies SET next_at = now() - interval '1 s' WHERE tenant_id = ${bench.tenantId}`,
    );
    const run = () => runSchedules({ ...doors(), hints }, new Date());
    expect(await run()).toEqual({ begun: 0, withoutStorage: 1 });
    expect(await run()).toEqual({ begun: 0, withoutStorage: 0 });
  });
});

test("a pod has the rules of its plan, and they follow the plan unless its owner chose others", async () => {
  const [node] = await bench.nodes(1);
  bench.work();
  if (node === undefined) throw new Error("no host");
  const pod = await bench.podOn(node);
  const rules = async () => await bench.inTenant(async (tx) => readPolicy(tx, await bench.podNow(pod.id)));
  expect(await rules()).toMatchObject({ source: "plan", everyHours: 24, keepLast: 2, keepDaily: 0, version: 1 });
  const scale = async (planCode: string) => {
    const { task } = await bench.inTenant((tx) =>
      scalePod(tx, { ...bench.who, isEmailVerified: () => Promise.resolve(true) }, pod.id, { planCode }),
    );
    expect(await bench.end(task.id)).toEqual({ state: "succeeded", errorCode: null });
  };
  await scale("CLOUD_POD_PREMIUM");
  expect(await rules()).toMatchObject({ source: "plan", keepLast: 1, keepDaily: 7, version: 2 });
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_backup_policies SET source = 'tenant', every_hours = 48 WHERE pod_id = ${pod.id}`,
  );
  await scale("CLOUD_POD_BUSINESS");
  expect(await rules()).toMatchObject({ source: "tenant", everyHours: 48, version: 2 });
});

describe("backups that there are", () => {
  test("are removed by their host once the rules say so, and only then gone", async () => {
    const { pod, backupId } = await ready();
    await copies(backupId, 5);
    expect(await pruneBackups(doors(), new Date())).toBe(4);
    expect(await pruneBackups(doors(), new Date())).toBe(0);
    const states = async () => (await backupsOf(pod)).map(({ state }) => state).toSorted();
    expect(await states()).toEqual(Array.from({ length: 6 }, () => "available"));
    expect(await errands(new Date())).toEqual({ pruned: 4, damaged: 0, failed: 0 });
    expect(await states()).toEqual([
      ...Array.from({ length: 2 }, () => "available"),
      ...Array.from({ length: 4 }, () => "pruned"),
    ]);
  });

  test("stay where they have become all that can be read since it was decided that they go", async () => {
    const { pod, backupId } = await ready();
    await copies(backupId, 5);
    const oldest = (await backupsOf(pod))[0]?.id;
    const late = lateDoors(() =>
      bench.db.system.execute(
        sql`UPDATE cloud_pod_backups SET damaged_at = now() WHERE pod_id = ${pod.id} AND id <> ${oldest}`,
      ),
    );
    expect(await pruneBackups(late, new Date())).toBe(0);
    expect((await backupsOf(pod)).filter(({ deleteRequestedAt }) => deleteRequestedAt !== null)).toEqual([]);
  });

  test("stay where another one, for which they were to go, is found damaged or is removed before a host is told", async () => {
    const { pod, backupId: newest, volumeId } = await ready();
    await copies(newest, 3);
    const going = async () =>
      (await backupsOf(pod)).filter(({ deleteRequestedAt }) => deleteRequestedAt !== null).map(({ id }) => id);
    const [oldest = "", older = "", good = ""] = (await backupsOf(pod)).map(({ id }) => id);
    const change = (what: Sql) => bench.db.system.execute(what);
    await change(sql`UPDATE cloud_pod_backup_policies SET keep_last = 1, keep_daily = 0 WHERE pod_id = ${pod.id}`);
    // The newest is being read while it is decided that the others go.
    await change(sql`UPDATE cloud_pod_backups SET checked_at = ${later(-8)} WHERE id = ${newest}`);
    bench.hosts.unreadable.add(volumeId);
    bench.hosts.away.add(pod.nodeId ?? "");
    await sendErrands(doors(), new Date());
    expect(await pruneBackups(doors(), new Date())).toBe(3);
    // A host was told of one already: nobody takes that back.
    await change(sql`
      WITH told AS (INSERT INTO node_commands (id, node_id, op, command, fleet_epoch, generation, revision, state)
        VALUES (gen_random_uuid(), ${pod.nodeId}, 'delete_backup', '{}', 1, 1, 1, 'running') RETURNING id)
      UPDATE cloud_pod_backups b SET errand = 'delete', errand_command_id = told.id FROM told WHERE b.id = ${oldest}`);
    bench.hosts.away.clear();
    await untilRung("it", bench.db.system, async () => (await collectErrands(doors(), new Date())).damaged === 1);
    expect(await going()).toEqual([oldest]);
    expect(await pruneBackups(doors(), new Date())).toBe(1);
    expect(await going()).toEqual([oldest, older]);
    await bench.inTenant((tx) => deleteBackup(tx, bench.who, pod.id, good, new Date()));
    expect(await going()).toEqual([oldest, good]);
  });

  test("of a pod that is gone stay for a month, and go by any host that sees them", async () => {
    const { pod, volumeId } = await ready();
    await destroy(pod);
    expect(await pruneBackups(doors(), later(29))).toBe(0);
    expect(await pruneBackups(doors(), later(31))).toBe(1);
    await bench.db.system.execute(sql`UPDATE node_status SET session_connected = false WHERE node_id = ${pod.nodeId}`);
    expect(await errands(new Date())).toMatchObject({ pruned: 1 });
    expect(bench.hosts.archives.has(volumeId)).toBe(false);
    expect((await backupsOf(pod))[0]?.state).toBe("pruned");
  });

  test("that cannot be removed are asked for again later", async () => {
    const { pod, backupId, volumeId } = await ready();
    await bench.db.system.execute(sql`UPDATE cloud_pod_backups SET delete_requested_at = now() WHERE id = ${backupId}`);
    bench.hosts.script = failing("deleteBackup", "STORAGE_UNAVAILABLE");
    const now = new Date();
    // Also who has seen it before it was tried waits until it is due again.
    const late = lateDoors(async () => {
      expect(await errands(now)).toMatchObject({ failed: 1 });
    });
    expect(await sendErrands(late, now)).toEqual([]);
    expect((await backupsOf(pod))[0]).toMatchObject({ state: "available", errorCode: "STORAGE_UNAVAILABLE" });
    bench.hosts.script = () => undefined;
    expect(await errands(now)).toMatchObject({ pruned: 0 });
    expect(await errands(later(0.01))).toMatchObject({ pruned: 1 });
    expect(bench.hosts.archives.has(volumeId)).toBe(false);
  });

  test("are looked after by another host where one is silent, and no answer that cannot be read keeps others waiting", async () => {
    const { pod, backupId } = await ready();
    const home = pod.nodeId ?? "";
    bench.hosts.away.add(home);
    expect(await sendErrands(doors(), later(8))).toEqual([home]);
    expect(await collectErrands(doors(), later(8))).toEqual({ pruned: 0, damaged: 0, failed: 0 });
    await bench.db.system.execute(sql`
      UPDATE node_commands SET created_at = created_at - interval '11 minutes' WHERE pod_id = ${pod.id} AND finished_at IS NULL`);
    await bench.db.system.execute(sql`
      UPDATE node_status SET session_connected = false, session_seen_at = now() - interval '11 minutes' WHERE node_id = ${home}`);
    expect(await collectErrands(doors(), later(8))).toMatchObject({ failed: 1 });
    expect((await backupsOf(pod))[0]).toMatchObject({ state: "available", errorCode: "NO_ANSWER" });
    // Also when it is back by then.
    await bench.db.system.execute(sql`UPDATE node_status SET session_connected = true WHERE node_id = ${home}`);
    const [other] = await sendErrands(doors(), later(8.1));
    expect(other).not.toBe(home);
    const answered = () =>
      bench.db.system.query(sql`
      SELECT FROM cloud_pod_backups b JOIN node_commands c ON c.id = b.errand_command_id WHERE b.id = ${backupId} AND c.finished_at IS NOT NULL`);
    await expect.poll(async () => (await answered()).length, { timeout: 60_000 }).toBe(1);
    await bench.db.system.execute(sql`
      UPDATE node_commands SET backup = '{"sizeBytes":"many"}' WHERE id = (SELECT errand_command_id FROM cloud_pod_backups WHERE id = ${backupId})`);
    expect(await collectErrands(doors(), later(8.1))).toMatchObject({ failed: 1 });
    expect((await backupsOf(pod))[0]).toMatchObject({ state: "available", errorCode: "ANSWER_UNREADABLE" });
    bench.hosts.away.clear();
    expect(await errands(later(8.2))).toEqual({ pruned: 0, damaged: 0, failed: 0 });
  });

  test("are read again each week; of a damaged one its tenant is told once, and it is not restored", async () => {
    const { pod, backupId, volumeId } = await ready();
    await bench.db.system.execute(
      sql`UPDATE tenants SET billing_email = 'owner@example.com' WHERE id = ${bench.tenantId}`,
    );
    expect(await errands(later(6))).toMatchObject({ damaged: 0 });
    expect(bench.hosts.archives.has(volumeId)).toBe(true);
    bench.hosts.unreadable.add(volumeId);
    expect(await errands(later(8))).toMatchObject({ damaged: 1 });
    expect(await errands(later(9))).toMatchObject({ damaged: 0 });
    expect(await errands(later(16))).toMatchObject({ damaged: 0 });
    const told = await bench.db.system.query(sql`SELECT FROM notifications WHERE tenant_id = ${bench.tenantId}`);
    expect(told).toHaveLength(1);
    await expect(bench.restore(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_DAMAGED" });
    bench.hosts.unreadable.clear();
    await errands(later(24));
    expect((await backupsOf(pod))[0]?.damagedAt).toBeNull();
  });

  test("that are not found are looked for again in an hour, by another host first, before that is believed", async () => {
    const { pod, backupId, volumeId } = await ready();
    await copies(backupId, 1);
    await bench.db.system.execute(sql`
      WITH one AS (UPDATE cloud_pod_backup_policies SET keep_last = 1, keep_daily = 0 WHERE pod_id = ${pod.id})
      UPDATE cloud_pod_backups SET checked_at = ${later(30)} WHERE pod_id = ${pod.id} AND id <> ${backupId}`);
    const [newest, anHour] = [async () => (await backupsOf(pod)).at(-1), 1.001 / 24];
    bench.hosts.blind.add(pod.nodeId ?? "");
    expect(await errands(later(8))).toEqual({ pruned: 0, damaged: 0, failed: 1 });
    expect(await newest()).toMatchObject({ damagedAt: null, errorCode: "ARCHIVE_NOT_SEEN" });
    expect(await pruneBackups(doors(), new Date()), "nothing goes for it meanwhile").toBe(0);
    await errands(later(8 + anHour / 2));
    expect((await newest())?.errorCode).toBe("ARCHIVE_NOT_SEEN");
    await errands(later(8 + anHour));
    expect(await newest()).toMatchObject({ damagedAt: null, errorCode: null });
    expect(await pruneBackups(doors(), new Date())).toBe(1);
    await bench.db.system.transaction((tx) => takeBackRetention(tx, pod.id));
    bench.hosts.archives.delete(volumeId);
    expect(await errands(later(16))).toEqual({ pruned: 0, damaged: 0, failed: 1 });
    bench.hosts.script = failing("verifyBackup", "STORAGE_UNAVAILABLE");
    expect(await errands(later(16 + anHour))).toEqual({ pruned: 0, damaged: 0, failed: 1 });
    expect(await pruneBackups(doors(), new Date()), "what says nothing of it takes no doubt away").toBe(0);
    bench.hosts.script = () => undefined;
    expect(await errands(later(16 + 2 * anHour))).toEqual({ pruned: 0, damaged: 1, failed: 0 });
    bench.hosts.blind.clear();
  });

  test("are looked after by a host that a move in vain has told of a newer place", async () => {
    const { pod, backupId } = await ready();
    const home = pod.nodeId ?? "";
    const [other] = await bench.db.system.query<{ id: string }>(
      sql`SELECT id FROM nodes WHERE schedulable AND id <> ${home}`,
    );
    const move = async (targetNodeId: string) => {
      const order = { targetNodeId, reason: "test" };
      const { task } = await bench.inSystem(async (tx) =>
        requestMove(tx, bench.fleet, bench.who, await lockPodById(tx, pod.id), order),
      );
      return (await bench.end(task.id)).state;
    };
    expect(await move(other?.id ?? "")).toBe("succeeded");
    bench.hosts.script = ({ op, nodeId }) =>
      op?.$case === "ensurePower" && nodeId === home
        ? { state: "failed", errorCode: "START_FAILED", retryable: false }
        : undefined;
    expect(await move(home)).toBe("failed");
    await bench.db.system.execute(sql`UPDATE cloud_pod_backups SET delete_requested_at = now() WHERE id = ${backupId}`);
    expect(await errands(new Date())).toEqual({ pruned: 1, damaged: 0, failed: 0 });
  });

  test("that stay behind when their pod moves are followed by one where it is now", async () => {
    await bench.db.system.execute(
      sql`UPDATE cloud_pod_backups SET state = 'pruned', pruned_at = now() WHERE pruned_at IS NULL`,
    );
    bench.work();
    const nodes = await bench.nodes(2, { cluster: true });
    const { pod } = await backedUp(nodes);
    await noneSoon();
    const due = async () => (await bench.inTenant(async (tx) => readPolicy(tx, await bench.podNow(pod.id)))).nextAt;
    const move = async (targetNodeId: string | undefined) => {
      const order = { targetNodeId, reason: "test" };
      const { task } = await bench.inSystem(async (tx) =>
        requestMove(tx, bench.fleet, bench.who, await lockPodById(tx, pod.id), order),
      );
      expect((await bench.end(task.id)).state).toBe("succeeded");
    };
    await move(nodes[1]?.id);
    expect((await due())?.getTime()).toBeGreaterThan(Date.now());
    await move(nodes[0]?.id);
    await bench.db.system.execute(sql`
      UPDATE storages SET shared = false, backend = '' WHERE holds_backups AND node_id = ANY(${nodes.map(({ id }) => id)}::uuid[])`);
    await move(nodes[1]?.id);
    expect((await due())?.getTime()).toBeLessThanOrEqual(Date.now());
  });

  test("what a backup that was given up has left behind is found and removed", async () => {
    const { pod, volumeId } = await ready();
    await bench.db.system.execute(sql`
      UPDATE cloud_pod_backups SET state = 'running', volume_id = NULL, finished_at = NULL WHERE pod_id = ${pod.id}`);
    expect(bench.hosts.archives.has(volumeId)).toBe(true);
    expect(await errands(new Date())).toMatchObject({ pruned: 1 });
    expect(bench.hosts.archives.has(volumeId)).toBe(false);
    expect((await backupsOf(pod))[0]).toMatchObject({ state: "failed", errorCode: "TASK_OVER" });
  });
});

async function ready(): Promise<Awaited<ReturnType<typeof backedUp>>> {
  // Those of earlier tests are gone with their hosts.
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_backups SET state = 'pruned', pruned_at = now() WHERE pruned_at IS NULL`,
  );
  bench.work();
  return await backedUp(await bench.nodes(2));
}

/** Older scheduled backups like one that there is. */
async function copies(backupId: string, count: number): Promise<void> {
  await bench.db.system.execute(sql`
    WITH made AS (
      INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, generation, vmid, spec, started_at, finished_at, checked_at)
      SELECT gen_random_uuid(), tenant_id, pod_id, node_id, storage_id, storage, 'scheduled', mode, state, volume_id || i, generation, vmid, spec,
        started_at - i * interval '1 day', finished_at, checked_at FROM cloud_pod_backups, generate_series(1, ${count}::integer) AS i WHERE id = ${backupId})
    UPDATE cloud_pod_backups SET kind = 'scheduled' WHERE id = ${backupId}`);
}

async function destroy(pod: Pod): Promise<void> {
  const { task } = await bench.inTenant((tx) => destroyPodNow(tx, bench.who, pod.id, new Date()));
  expect(await bench.end(task.id)).toEqual({ state: "succeeded", errorCode: null });
}
