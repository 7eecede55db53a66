import { newId } from "@cloudpods/shared/ids";
import { describe, expect, test } from "vitest";
import { untilRung } from "../../../test/support/bell.ts";
import { dyingAt } from "../../../test/support/dying-worker.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import type { FleetCommand, FleetEnd } from "../../../test/support/scripted-fleet.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Accepted } from "../pods/change-power.ts";
import { destroyAfterBackup } from "../pods/destroy-pod.ts";
import type { Pod } from "../pods/pod.ts";
import { prepareRetry } from "../pods/retry-work.ts";
import { systemActor } from "../security/actor.ts";
import { findTask } from "../tasks/change-task.ts";
import { archiveTimeoutMs } from "./archive-steps.ts";
import { selectBackups, type Backup } from "./backup.ts";
import { deleteBackup } from "./delete-backup.ts";
import { requestBackup } from "./request-backup.ts";
import { orderFromBackup, requestRestore, type RestoreWish } from "./request-restore.ts";

const bench = new MoveWorkbench();

function inTenant<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
  return bench.db.api.transaction(work, { tenantId: bench.tenantId });
}

const who = () => ({ tenantId: bench.tenantId, actor: systemActor("test"), requestId: newId() });

function backUp(pod: Pod): Promise<Accepted & { backupId: string }> {
  return inTenant((tx) => requestBackup(tx, who(), pod.id, {}));
}

function restore(pod: Pod, backupId: string): Promise<Accepted> {
  return inTenant((tx) => requestRestore(tx, who(), pod.id, backupId));
}

function asNewPod(pod: Pod, backupId: string, wish: Partial<RestoreWish> = {}): Promise<Accepted> {
  const ordering = {
    ...who(),
    defaultRegion: "local",
    fleet: bench.fleet,
    isEmailVerified: () => Promise.resolve(true),
  };
  return inTenant((tx) => orderFromBackup(tx, ordering, pod.id, backupId, { hostname: "copy", ...wish }));
}

function destroyLast(pod: Pod): Promise<Accepted> {
  return inTenant((tx) => destroyAfterBackup(tx, who(), pod.id));
}

async function backupOf(id: string): Promise<Backup> {
  const [backup] = await bench.db.system.query<Backup>(sql`${selectBackups} WHERE b.id = ${id}`);
  if (backup === undefined) throw new Error("no backup");
  return backup;
}

async function done(work: Promise<Accepted>): Promise<Accepted> {
  const accepted = await work;
  expect(await bench.end(accepted.task.id)).toEqual({ state: "succeeded", errorCode: null });
  return accepted;
}

/** A pod that runs, with a backup of it. */
async function backedUp(
  power: "running" | "stopped" = "running",
): Promise<{ pod: Pod; backupId: string; nodes: BenchNode[] }> {
  const nodes = await bench.nodes(2);
  bench.work();
  const pod = await bench.podOn(nodes[0] ?? noHost(), power);
  const { task, backupId } = await backUp(pod);
  expect(await bench.end(task.id)).toEqual({ state: "succeeded", errorCode: null });
  return { pod: await bench.podNow(pod.id), backupId, nodes };
}

function noHost(): never {
  throw new Error("no host");
}

const failing =
  (op: string, errorCode: string) =>
  (command: FleetCommand): FleetEnd | undefined =>
    command.op?.$case === op ? { state: "failed", errorCode, retryable: false } : undefined;

const writtenIn = (pod: Pod) => bench.hosts.at(pod.nodeId ?? "", pod.vmid)?.written;

describe("a backup", () => {
  test("counts when its archive was read, and says what the pod was", async () => {
    const { pod, backupId } = await backedUp();
    const backup = await backupOf(backupId);
    expect(backup).toMatchObject({
      state: "available",
      kind: "manual",
      mode: "snapshot",
      storage: "backups",
      sizeBytes: 1n,
      vmid: pod.vmid,
      spec: { hostname: "shop", cores: 1, memoryMb: 1_024, diskGb: 30, planCode: "CLOUD_POD_STARTER" },
      damagedAt: null,
    });
    expect(backup.verifiedAt).not.toBeNull();
    expect(bench.hosts.archives.size).toBe(1);
  });

  test("of a stopped pod needs no snapshot", async () => {
    const { backupId } = await backedUp("stopped");
    expect((await backupOf(backupId)).mode).toBe("stop");
  });

  test("falls back where the storage has no snapshots after all", async () => {
    const [node = noHost()] = await bench.nodes(1);
    bench.work();
    const pod = await bench.podOn(node);
    bench.hosts.script = ({ op }) =>
      op?.$case === "backup" && op.value.mode === "snapshot"
        ? { state: "failed", errorCode: "SNAPSHOT_UNSUPPORTED", retryable: false }
        : undefined;
    const { backupId } = (await done(backUp(pod))) as Accepted & { backupId: string };
    expect(await backupOf(backupId)).toMatchObject({ state: "available", mode: "suspend" });
  });

  test("without a storage for it is refused, and leaves nothing", async () => {
    const [node = noHost()] = await bench.nodes(1, { backups: false });
    bench.work();
    const pod = await bench.podOn(node);
    await expect(backUp(pod)).rejects.toMatchObject({ code: "NO_BACKUP_STORAGE" });
    await expect(destroyLast(pod)).rejects.toMatchObject({ code: "NO_BACKUP_STORAGE" });
    const [row] = await bench.db.system.query(sql`
      SELECT (SELECT count(*) FROM cloud_pod_backups WHERE pod_id = ${pod.id}) AS backups,
        (SELECT count(*) FROM cloud_pod_provisioning_tasks WHERE pod_id = ${pod.id} AND type <> 'create') AS tasks`);
    expect(row).toEqual({ backups: 0n, tasks: 0n });
  });

  test.each([
    ["cannot be made", failing("backup", "STORAGE_FULL"), "STORAGE_FULL"],
    ["cannot be read", undefined, "ARCHIVE_UNREADABLE"],
  ])("that %s has failed, with the reason", async (_, script, errorCode) => {
    const [node = noHost()] = await bench.nodes(1);
    bench.work();
    const pod = await bench.podOn(node);
    bench.hosts.script =
      script ??
      (({ op }) => {
        if (op?.$case === "verifyBackup") bench.hosts.unreadable.add(op.value.volumeId);
        return undefined;
      });
    const { task, backupId } = await backUp(pod);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode });
    expect(await backupOf(backupId)).toMatchObject({ state: "failed", errorCode });
    await expect(restore(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_AVAILABLE" });
  });

  test("that people ask for is one of five at most", async () => {
    const { pod, backupId } = await backedUp();
    await bench.db.system.execute(sql`
      INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, generation, vmid, spec, finished_at)
      SELECT gen_random_uuid(), tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, generation, vmid, spec, finished_at
      FROM cloud_pod_backups, generate_series(1, 4) WHERE id = ${backupId}`);
    await expect(backUp(pod)).rejects.toMatchObject({ code: "BACKUP_LIMIT_REACHED" });
  });
});

describe("a restore in place", () => {
  test.each(["running", "stopped"] as const)("gives back what was there, %s as is wanted", async (power) => {
    const { pod, backupId } = await backedUp(power);
    const before = writtenIn(pod);
    // What happens after the backup is lost with the restore.
    const container = bench.hosts.at(pod.nodeId ?? "", pod.vmid);
    if (container !== undefined)
      bench.hosts.containers.get(pod.nodeId ?? "")?.set(pod.vmid, { ...container, written: 77 });
    await done(restore(pod, backupId));
    const after = await bench.podNow(pod.id);
    expect(writtenIn(after)).toBe(before);
    expect(after).toMatchObject({ status: "active", observedPower: power, nodeId: pod.nodeId, mac: pod.mac });
    expect(bench.hosts.copies(pod.vmid).running).toEqual(power === "running" ? [pod.nodeId] : []);
  });

  test("of an archive that cannot be read stops nothing", async () => {
    const { pod, backupId } = await backedUp();
    bench.hosts.unreadable.add((await backupOf(backupId)).volumeId ?? "");
    const { task } = await restore(pod, backupId);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "ARCHIVE_UNREADABLE" });
    expect(bench.hosts.carriedOut.filter((one) => one.startsWith("restore"))).toEqual([]);
    expect(bench.hosts.copies(pod.vmid).running).toEqual([pod.nodeId]);
  });

  test("that fails leaves the pod as it is, says why, and can be asked again", async () => {
    const { pod, backupId } = await backedUp();
    bench.hosts.script = failing("restore", "STORAGE_FULL");
    const { task } = await restore(pod, backupId);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "STORAGE_FULL" });
    expect(await bench.podNow(pod.id)).toMatchObject({ status: "active", lastErrorCode: "STORAGE_FULL" });
    expect(bench.hosts.copies(pod.vmid).running).toEqual([pod.nodeId]);
    bench.hosts.script = () => undefined;
    await done(restore(pod, backupId));
    expect((await bench.podNow(pod.id)).lastErrorCode).toBeNull();
  });

  test("of another pod's backup, or where its host does not see it, is refused", async () => {
    const { pod, backupId, nodes } = await backedUp();
    const other = await bench.podOn(nodes[0] ?? noHost());
    await expect(restore(other, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_FOUND" });
    await bench.db.system.execute(sql`UPDATE node_storages SET available = false WHERE node_id = ${pod.nodeId}`);
    await expect(restore(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_REACHABLE" });
  });
});

describe("a new pod of a backup", () => {
  test("is an order of its own, on any host that sees the archive, also when the old pod is gone", async () => {
    const { pod, backupId, nodes } = await backedUp();
    const written = writtenIn(pod);
    const { task } = await inTenant((tx) => destroyAfterBackup(tx, who(), pod.id));
    await bench.end(task.id);
    await bench.db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE id = ${nodes[0]?.id}`);
    const { pod: ordered, task: order } = await done(asNewPod(pod, backupId));
    expect(order.deadlineAt.getTime() - order.createdAt.getTime()).toBeGreaterThan(archiveTimeoutMs);
    const made = await bench.podNow(ordered.id);
    expect(made).toMatchObject({
      status: "active",
      nodeId: nodes[1]?.id,
      planCode: "CLOUD_POD_STARTER",
      hostname: "copy",
    });
    expect(made.vmid).not.toBe(pod.vmid);
    expect(made.mac).not.toBe(pod.mac);
    expect(made.subscriptionId).not.toBe(pod.subscriptionId);
    expect(writtenIn(made)).toBe(written);
    expect(bench.hosts.carriedOut.filter((one) => one.startsWith("ensureContainer"))).toHaveLength(1);
  });

  test("has the hours that its archive needs also when it is tried again", async () => {
    const { pod, backupId } = await backedUp();
    bench.hosts.script = failing("restore", "STORAGE_FULL");
    const { task } = await asNewPod(pod, backupId);
    expect((await bench.end(task.id)).state).toBe("failed");
    const failed = await findTask(bench.db.system, task.id);
    expect(await bench.inSystem((tx) => prepareRetry(tx, failed))).toBeGreaterThan(archiveTimeoutMs);
  });

  test("needs a disk that is large enough, and a host that sees the archive", async () => {
    const { pod, backupId } = await backedUp();
    const small = { resources: { cores: 1, memoryMb: 512, diskGb: 29 } };
    await expect(asNewPod(pod, backupId, small)).rejects.toMatchObject({ code: "DISK_TOO_SMALL" });
    await bench.db.system.execute(sql`
      UPDATE node_storages SET available = false WHERE storage_id IN (SELECT id FROM storages WHERE holds_backups)`);
    await expect(asNewPod(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_REACHABLE" });
  });
});

describe("a last backup", () => {
  test("is made and read before anything is removed, and stays for a month", async () => {
    const { pod } = await backedUp();
    await done(destroyLast(pod));
    expect((await bench.podNow(pod.id)).status).toBe("deleted");
    expect(bench.hosts.copies(pod.vmid).here).toEqual([]);
    const [last] = await bench.db.system.query<Backup>(
      sql`${selectBackups} WHERE b.pod_id = ${pod.id} AND b.kind = 'final'`,
    );
    expect(last?.state).toBe("available");
    expect((last?.expiresAt?.getTime() ?? 0) - Date.now()).toBeGreaterThan(29 * 86_400_000);
  });

  test("that cannot be made leaves the pod as it is", async () => {
    const { pod } = await backedUp();
    bench.hosts.script = failing("backup", "STORAGE_FULL");
    const { task } = await destroyLast(pod);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode: "STORAGE_FULL" });
    expect(await bench.podNow(pod.id)).toMatchObject({
      status: "active",
      desiredPower: "running",
      deletionRequestedAt: null,
      lastErrorCode: "STORAGE_FULL",
    });
    expect(bench.hosts.copies(pod.vmid).running).toEqual([pod.nodeId]);
    expect(bench.hosts.carriedOut.filter((one) => one.startsWith("ensureAbsent"))).toEqual([]);
  });
});

test("a backup that something is made from is not deleted", async () => {
  const { pod, backupId } = await backedUp();
  bench.hosts.away.add(pod.nodeId ?? "");
  const { task } = await restore(pod, backupId);
  const drop = () => inTenant((tx) => deleteBackup(tx, who(), pod.id, backupId, new Date()));
  await expect(drop()).rejects.toMatchObject({ code: "BACKUP_IN_USE" });
  bench.hosts.away.clear();
  await bench.end(task.id);
  expect((await drop()).deleteRequestedAt).not.toBeNull();
  await expect(restore(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_AVAILABLE" });
});

/** Does the work again and again, the worker dying one boundary later each time, until one gets through. */
async function dieEverywhere(begin: () => Promise<string>, check: () => Promise<void>): Promise<string[]> {
  const died: string[] = [];
  for (let nth = 1; ; nth++) {
    const taskId = await begin();
    const death = dyingAt(nth);
    const worker = bench.work(death.onBoundary);
    await untilRung("a death or an end", bench.db.system, async () => death.where() !== undefined || isOver(taskId));
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

async function isOver(taskId: string): Promise<boolean> {
  const rows = await bench.db.system.query(sql`
    SELECT FROM cloud_pod_provisioning_tasks WHERE id = ${taskId} AND state IN ('succeeded', 'failed')`);
  return rows.length > 0;
}

describe("kill -9 of the worker at every boundary", () => {
  test("of a backup and of a restore ends as if it had not died", async () => {
    const [node = noHost()] = await bench.nodes(1);
    const first = bench.work();
    const pod = await bench.podOn(node);
    await first.stop();
    let backupId = "";
    const made = await dieEverywhere(
      async () => {
        await bench.db.system.execute(sql`UPDATE cloud_pod_backups SET kind = 'scheduled' WHERE pod_id = ${pod.id}`);
        const accepted = await backUp(pod);
        ({ backupId } = accepted);
        return accepted.task.id;
      },
      async () => expect(await backupOf(backupId)).toMatchObject({ state: "available" }),
    );
    const restored = await dieEverywhere(
      async () => (await restore(pod, backupId)).task.id,
      async () => {
        await Promise.resolve();
        expect(bench.hosts.at(node.id, pod.vmid)).toMatchObject({ power: 1, written: 1 });
      },
    );
    for (const [died, steps] of [
      [made, ["backup", "verify"]],
      [restored, ["check", "stop", "restore", "start"]],
    ] as const)
      for (const step of steps)
        for (const boundary of ["stepped", "committed"]) expect(died).toContain(`${boundary} ${step}`);
  }, 170_000);
});
