import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { BackupWorkbench, failing } from "../../../test/support/backup-workbench.ts";
import { vanish } from "../../../test/support/lost-hosts.ts";
import { untilRung } from "../../../test/support/bell.ts";
import { sql } from "../platform/sql.ts";
import { prepareRetry } from "../pods/retry-work.ts";
import { cancelTask, findTask } from "../tasks/change-task.ts";
import type { Task } from "../tasks/task.ts";
import { archiveTimeoutMs } from "./archive-steps.ts";
import { collectErrands } from "./collect-errands.ts";
import { requestRestore } from "./request-restore.ts";
import { sendErrands } from "./send-errands.ts";

const bench = new BackupWorkbench();
const doors = () => ({ db: bench.db.system, log: pino({ level: "silent" }) });

describe("a restore in place", () => {
  test.each(["running", "stopped"] as const)("gives back what was there, %s as is wanted", async (power) => {
    const { pod, backupId } = await bench.backedUp(power);
    const before = bench.writtenIn(pod);
    // What happens after the backup is lost with the restore.
    const container = bench.hosts.at(pod.nodeId ?? "", pod.vmid);
    if (container !== undefined)
      bench.hosts.containers.get(pod.nodeId ?? "")?.set(pod.vmid, { ...container, written: 77 });
    await bench.done(bench.restore(pod, backupId));
    const after = await bench.podNow(pod.id);
    expect(bench.writtenIn(after)).toBe(before);
    expect(after).toMatchObject({ status: "active", observedPower: power, nodeId: pod.nodeId, mac: pod.mac });
    expect(bench.hosts.copies(pod.vmid).running).toEqual(power === "running" ? [pod.nodeId] : []);
  });

  test("of an archive that cannot be read stops nothing", async () => {
    const { pod, backupId } = await bench.backedUp();
    bench.hosts.unreadable.add((await bench.backupOf(backupId)).volumeId ?? "");
    const { task } = await bench.restore(pod, backupId);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "ARCHIVE_UNREADABLE" });
    expect((await bench.backupOf(backupId)).damagedAt).not.toBeNull();
    expect(bench.hosts.carriedOut.filter((one) => one.startsWith("restore"))).toEqual([]);
    expect(bench.hosts.copies(pod.vmid).running).toEqual([pod.nodeId]);
  });

  test("of an archive that is gone asks another host, marks the backup and tells once; the next one is taken", async () => {
    const { pod, backupId: older } = await bench.backedUp();
    const { backupId } = await bench.done(bench.backUp(pod));
    await bench.db.system.execute(
      sql`UPDATE cloud_pod_backups SET delete_requested_at = now(), delete_reason = 'retention' WHERE id = ${older}`,
    );
    await bench.db.system.execute(
      sql`UPDATE tenants SET billing_email = 'owner@example.com' WHERE id = ${bench.tenantId}`,
    );
    const volumeId = (await bench.backupOf(backupId)).volumeId ?? "";
    const archive = bench.hosts.archives.get(volumeId);
    bench.hosts.archives.delete(volumeId);
    const { task } = await bench.restore(pod, backupId);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "ARCHIVE_MISSING" });
    const asked = await bench.db.system.query(
      sql`SELECT DISTINCT node_id FROM node_commands WHERE task_id = ${task.id} AND op = 'verify_backup'`,
    );
    expect(asked).toHaveLength(2);
    expect((await bench.backupOf(backupId)).damagedAt).not.toBeNull();
    const [told] = await bench.db.system.query(sql`
      SELECT (SELECT count(*) FROM audit_log WHERE action = 'backup.damaged' AND target_id = ${backupId}) AS audit,
        (SELECT count(*) FROM notifications WHERE tenant_id = ${bench.tenantId}) AS news`);
    expect(told).toEqual({ audit: 1n, news: 1n });
    // It was to go for the one that is damaged.
    expect((await bench.backupOf(older)).deleteRequestedAt).toBeNull();
    await expect(bench.restore(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_DAMAGED" });
    await bench.done(bench.restore(pod, older));
    // Its storage was away for a moment: that is found out in an hour, and not in a week.
    if (archive !== undefined) bench.hosts.archives.set(volumeId, archive);
    const damagedAfter = async (minutes: number) => {
      const now = new Date(Date.now() + minutes * 60_000);
      await sendErrands(doors(), now);
      const isOnItsWay = sql`SELECT FROM cloud_pod_backups WHERE id = ${backupId} AND errand IS NOT NULL`;
      await untilRung("the answer", bench.db.system, async () => {
        await collectErrands(doors(), now);
        return (await bench.db.system.query(isOnItsWay)).length === 0;
      });
      return (await bench.backupOf(backupId)).damagedAt !== null;
    };
    expect([await damagedAfter(30), await damagedAfter(61)]).toEqual([true, false]);
  });

  test("looks again where nobody else can be asked: a storage that is being mounted costs no backup", async () => {
    const { pod, backupId } = await bench.backedUp();
    await bench.db.system.execute(sql`UPDATE node_storages SET available = false WHERE node_id <> ${pod.nodeId}`);
    const volumeId = (await bench.backupOf(backupId)).volumeId ?? "";
    const archive = bench.hosts.archives.get(volumeId);
    bench.hosts.archives.delete(volumeId);
    const { task } = await bench.restore(pod, backupId);
    const looks = async (count: number) =>
      (
        await bench.db.system.query(
          sql`SELECT FROM node_commands WHERE task_id = ${task.id} AND finished_at IS NOT NULL`,
        )
      ).length >= count;
    await untilRung("a second look", bench.db.system, () => looks(2));
    expect((await bench.backupOf(backupId)).damagedAt).toBeNull();
    if (archive !== undefined) bench.hosts.archives.set(volumeId, archive);
    expect(await bench.end(task.id)).toEqual({ state: "succeeded", errorCode: null });

    bench.hosts.archives.delete(volumeId);
    const again = (await bench.restore(pod, backupId)).task;
    await bench.db.system.execute(sql`UPDATE cloud_pod_provisioning_tasks SET attempts = 7 WHERE id = ${again.id}`);
    expect(await bench.end(again.id)).toEqual({ state: "failed", errorCode: "ARCHIVE_MISSING" });
    expect((await bench.backupOf(backupId)).damagedAt).not.toBeNull();
    await bench.db.system.execute(sql`UPDATE node_storages SET available = true`);
  });

  test("of an archive that only the pod's own host does not see marks nothing", async () => {
    const { pod, backupId, nodes } = await bench.backedUp();
    // Hosts of other tests would be asked too.
    await bench.db.system.execute(
      sql`UPDATE node_storages SET available = false WHERE node_id <> ALL(${nodes.map(({ id }) => id)}::uuid[])`,
    );
    bench.hosts.blind.add(pod.nodeId ?? "");
    const { task } = await bench.restore(pod, backupId);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "ARCHIVE_NOT_SEEN" });
    expect((await bench.backupOf(backupId)).damagedAt).toBeNull();
    expect(bench.hosts.copies(pod.vmid).running).toEqual([pod.nodeId]);
    // Nor does one who dies while he is asked for it.
    bench.hosts.script = ({ op, nodeId }) => {
      if (op?.$case === "verifyBackup" && nodeId === pod.nodeId) {
        const [, other] = nodes;
        bench.hosts.away.add(other.id);
      }
      return undefined;
    };
    const { task: next } = await bench.restore(pod, backupId);
    const isAsked = () =>
      bench.db.system.query(sql`
        SELECT FROM node_commands WHERE task_id = ${next.id} AND node_id = ${nodes[1].id} AND finished_at IS NULL`);
    await untilRung("the question", bench.db.system, async () => (await isAsked()).length > 0);
    await vanish(bench, nodes[1]);
    expect(await bench.end(next.id)).toEqual({ state: "failed", errorCode: "ARCHIVE_NOT_SEEN" });
    expect((await bench.backupOf(backupId)).damagedAt).toBeNull();
    bench.hosts.script = () => undefined;
    bench.hosts.blind.clear();
    await bench.done(bench.restore(pod, backupId));
  });

  test.each(["running", "stopped"] as const)(
    "that fails takes the container with it, says so, and is asked for again, of an older backup too (%s)",
    async (power) => {
      const { pod, backupId } = await bench.backedUp(power);
      const { backupId: newer } = await bench.done(bench.backUp(pod));
      bench.hosts.loseAtRestore("STORAGE_FULL");
      const { task } = await bench.restore(pod, newer);
      expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "STORAGE_FULL" });
      const gone = expect.stringContaining("The container is gone: restore this backup again, or an older one");
      expect(await findTask(bench.db.system, task.id)).toMatchObject({ errorMessage: gone });
      const lost = await bench.podNow(pod.id);
      expect(lost).toMatchObject({ status: "active", nodeId: pod.nodeId, observedPower: "unknown" });
      expect(lost).toMatchObject({ lastErrorCode: "STORAGE_FULL", lastErrorMessage: gone });
      expect(lost.containerMissingSince).not.toBeNull();
      const books = await bench.books(pod.id);
      expect(bench.hosts.copies(pod.vmid).here).toEqual([]);
      bench.hosts.script = () => undefined;
      await bench.done(bench.restore(pod, backupId));
      expect(await bench.podNow(pod.id)).toMatchObject({
        observedPower: power,
        lastErrorCode: null,
        containerMissingSince: null,
      });
      expect(bench.hosts.copies(pod.vmid).running).toEqual(power === "running" ? [pod.nodeId] : []);
      expect(await bench.books(pod.id)).toEqual(books);
    },
  );

  test("that fails before anything was replaced leaves the pod as it is", async () => {
    const { pod, backupId } = await bench.backedUp();
    bench.hosts.script = failing("restore", "BACKUP_MISSING");
    const { task } = await bench.restore(pod, backupId);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "BACKUP_MISSING" });
    expect(bench.hosts.copies(pod.vmid).running).toEqual([pod.nodeId]);
    expect((await bench.podNow(pod.id)).containerMissingSince).toBeNull();
    expect((await bench.podNow(pod.id)).lastErrorMessage).not.toContain("gone");
  });

  test("that its host would refuse by the time the archive is read stops nothing", async () => {
    const { pod, backupId } = await bench.backedUp();
    const answering = (errorCode: string) => {
      bench.hosts.script = ({ op }) => {
        if (op?.$case === "ensurePower") stops.push(op.value.power);
        const isAsked = op?.$case === "inspect" && op.value.beforeRestore?.overwrite === true;
        return isAsked ? { state: "failed", errorCode, retryable: false } : undefined;
      };
    };
    const stops: Power[] = [];
    answering("STORAGE_FULL");
    const { task } = await bench.restore(pod, backupId);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "STORAGE_FULL" });
    expect(stops).not.toContain(Power.POWER_STOPPED);
    expect(bench.hosts.copies(pod.vmid).running).toEqual([pod.nodeId]);
    // An agent of the former release knows no better than that it runs.
    answering("STILL_RUNNING");
    await bench.done(bench.restore(pod, backupId));
    expect(stops).toContain(Power.POWER_STOPPED);
    bench.hosts.script = () => undefined;
  });

  test("can be cancelled until the container is replaced, and then no more", async () => {
    const { pod, backupId } = await bench.backedUp();
    const cancel = (task: Task) => bench.inTenant((tx) => cancelTask(tx, task.tenantId, task.id));
    // As a customer's: what the system asks for is nobody's to cancel.
    const own = (id: string) =>
      bench.db.system.execute(sql`UPDATE cloud_pod_provisioning_tasks SET requested_by = 'user:test' WHERE id = ${id}`);
    bench.hosts.away.add(pod.nodeId ?? "");
    const { task: early } = await bench.restore(pod, backupId);
    await own(early.id);
    await cancel(early);
    bench.hosts.away.clear();
    expect(await bench.end(early.id)).toMatchObject({ state: "cancelled" });
    expect(bench.hosts.carriedOut.filter((one) => one.startsWith("restore"))).toEqual([]);

    // The host goes silent when it has stopped the container.
    bench.hosts.script = ({ op }) => {
      if (op?.$case === "ensurePower" && op.value.power === Power.POWER_STOPPED) bench.hosts.away.add(pod.nodeId ?? "");
      return undefined;
    };
    const { task } = await bench.restore(pod, backupId);
    await own(task.id);
    await untilRung("the restore", bench.db.system, async () => {
      const now = await findTask(bench.db.system, task.id);
      return now.step === "restore" && now.commandId !== null;
    });
    await expect(cancel(task)).rejects.toMatchObject({
      code: "TASK_NOT_CANCELLABLE",
      message: expect.stringContaining("it would be gone"),
    });
    const waiting = await findTask(bench.db.system, task.id);
    // However long the archive was read: the host has all its time for this.
    expect(waiting.deadlineAt.getTime() - Date.now()).toBeGreaterThan(2 * archiveTimeoutMs);
    bench.hosts.script = () => undefined;
    bench.hosts.away.clear();
    expect(await bench.end(task.id)).toEqual({ state: "succeeded", errorCode: null });
  });

  test("stops nothing when there is no room for both disks", async () => {
    const { pod, backupId } = await bench.backedUp();
    const fill = (freeGb: number) =>
      bench.db.system.execute(sql`
        UPDATE storages s SET used_gb = total_gb - ${freeGb} FROM node_claims k WHERE k.pod_id = ${pod.id} AND s.id = k.storage_id`);
    await fill(pod.diskGb - 1);
    await expect(bench.restore(pod, backupId)).rejects.toMatchObject({
      code: "STORAGE_FULL",
      details: { freeGb: pod.diskGb - 1, neededGb: pod.diskGb },
    });
    await fill(pod.diskGb);
    // It fills up while the archive is read.
    bench.hosts.away.add(pod.nodeId ?? "");
    const { task } = await bench.restore(pod, backupId);
    await fill(0);
    bench.hosts.away.clear();
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "STORAGE_FULL" });
    expect(bench.hosts.carriedOut.filter((one) => one.startsWith("restore"))).toEqual([]);
    expect(bench.hosts.copies(pod.vmid).running).toEqual([pod.nodeId]);
    expect((await findTask(bench.db.system, task.id)).errorMessage).toContain("has 0 GB left");
    // Where there is nothing to give up, it may be tried.
    await bench.db.system.execute(sql`UPDATE cloud_pods SET container_missing_since = now() WHERE id = ${pod.id}`);
    await bench.done(bench.restore(pod, backupId));
  });

  test("that failed is not tried again of a backup that is to go, nor goes on with one", async () => {
    const { pod, backupId } = await bench.backedUp();
    bench.hosts.script = failing("restore", "BACKUP_MISSING");
    const { task } = await bench.restore(pod, backupId);
    await bench.end(task.id);
    bench.hosts.script = () => undefined;
    const goes = (at: string | null) =>
      bench.db.system.execute(sql`UPDATE cloud_pod_backups SET delete_requested_at = ${at} WHERE id = ${backupId}`);
    await goes("2026-01-01");
    const again = () => bench.inTenant(async (tx) => prepareRetry(tx, await findTask(tx, task.id)));
    await expect(again()).rejects.toMatchObject({ code: "BACKUP_NOT_AVAILABLE" });
    await goes(null);
    await again();
    await bench.db.system.execute(sql`UPDATE cloud_pod_backups SET damaged_at = now() WHERE id = ${backupId}`);
    await expect(again()).rejects.toMatchObject({ code: "BACKUP_DAMAGED" });
    await bench.db.system.execute(sql`UPDATE cloud_pod_backups SET damaged_at = NULL WHERE id = ${backupId}`);

    // Told to go in the moment between the request and its first step.
    const next = await bench.inTenant(async (tx) => {
      const accepted = await requestRestore(tx, bench.who, pod.id, backupId);
      await tx.execute(sql`UPDATE cloud_pod_backups SET delete_requested_at = now() WHERE id = ${backupId}`);
      return accepted.task;
    });
    expect(await bench.end(next.id)).toEqual({ state: "failed", errorCode: "BACKUP_NOT_AVAILABLE" });
    expect(bench.hosts.copies(pod.vmid).running).toEqual([pod.nodeId]);
  });

  test("of another pod's backup, or where its host does not see it, is refused", async () => {
    const { pod, backupId, nodes } = await bench.backedUp();
    const other = await bench.podOn(nodes[0]);
    await expect(bench.restore(other, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_FOUND" });
    await bench.db.system.execute(sql`UPDATE node_storages SET available = false WHERE node_id = ${pod.nodeId}`);
    await expect(bench.restore(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_REACHABLE" });
  });
});

/**
 * Does the work again and again, the worker dying each time at the first boundary where none has died, until one gets through.
 * Boundaries are told apart by how often a step has come to them: a host that is slow to answer has its task looked at more often.
 */
async function dieEverywhere(begin: () => Promise<string>, check: () => Promise<void>): Promise<string[]> {
  const died: string[] = [];
  for (;;) {
    const taskId = await begin();
    const death = dyingAtNew(died);
    const worker = bench.work(death.onBoundary);
    await untilRung(
      "a death or an end",
      bench.db.system,
      async () => death.where() !== undefined || bench.isOver(taskId),
    );
    await worker.stop();
    await bench.db.system.execute(
      sql`UPDATE cloud_pod_provisioning_tasks SET lease_until = NULL, run_after = now() WHERE id = ${taskId}`,
    );
    const survivor = bench.work();
    expect(await bench.end(taskId)).toEqual({ state: "succeeded", errorCode: null });
    await survivor.stop();
    await check();
    const where = death.where();
    if (where === undefined) return died;
    died.push(where);
  }
}

/** Ends a worker as `dyingAt` does, at the first boundary that is not among those. */
function dyingAtNew(died: readonly string[]) {
  const reached = new Map<string, number>();
  let where: string | undefined;
  return {
    where: () => where,
    async onBoundary(boundary: string, task: { step: string }) {
      if (boundary === "claimed") return;
      const name = `${boundary} ${task.step}`;
      const times = (reached.get(name) ?? 0) + 1;
      reached.set(name, times);
      const here = `${name} ${times}`;
      if (where === undefined && died.includes(here)) return;
      where ??= here;
      await Promise.reject(new Error("killed"));
    },
  };
}

describe("kill -9 of the worker at every boundary", () => {
  test("of a backup and of a restore ends as if it had not died", async () => {
    const [node] = await bench.nodes(1);
    if (node === undefined) throw new Error("no host");
    const first = bench.work();
    const pod = await bench.podOn(node);
    await first.stop();
    let backupId = "";
    const made = await dieEverywhere(
      async () => {
        await bench.db.system.execute(sql`UPDATE cloud_pod_backups SET kind = 'scheduled' WHERE pod_id = ${pod.id}`);
        const accepted = await bench.backUp(pod);
        ({ backupId } = accepted);
        return accepted.task.id;
      },
      async () => expect(await bench.backupOf(backupId)).toMatchObject({ state: "available" }),
    );
    const restored = await dieEverywhere(
      async () => (await bench.restore(pod, backupId)).task.id,
      async () => {
        await Promise.resolve();
        expect(bench.hosts.at(node.id, pod.vmid)).toMatchObject({ power: 1, written: 1 });
      },
    );
    for (const [died, steps] of [
      [made, ["backup", "verify"]],
      [restored, ["check", "look", "stop", "restore", "start"]],
    ] as const)
      for (const step of steps)
        for (const boundary of ["stepped", "committed"]) expect(died).toContain(`${boundary} ${step} 2`);
  }, 300_000);
});
