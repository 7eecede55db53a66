import { Command } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { describe, expect, test } from "vitest";
import { BackupWorkbench, failing } from "../../../test/support/backup-workbench.ts";
import { made } from "../nodes/planned-command.ts";
import { sql, type Sql } from "../platform/sql.ts";
import type { Accepted } from "../pods/change-power.ts";
import { destroyAfterBackup } from "../pods/destroy-pod.ts";
import type { Ordering } from "../pods/order-pod.ts";
import type { Pod } from "../pods/pod.ts";
import { prepareRetry } from "../pods/retry-work.ts";
import { findTask } from "../tasks/change-task.ts";
import { archiveTimeoutMs } from "./archive-steps.ts";
import { selectBackups, type Backup } from "./backup.ts";
import { deleteBackup } from "./delete-backup.ts";
import { planNewPod, planRestore } from "./plan-restore.ts";
import { orderFromBackup, requestRestore, type RestoreWish } from "./request-restore.ts";

const bench = new BackupWorkbench();

function ordering(): Ordering {
  const { who, fleet } = bench;
  return { ...who, defaultRegion: "local", fleet, isEmailVerified: () => Promise.resolve(true) };
}

function asNewPod(pod: Pod, backupId: string, wish: Partial<RestoreWish> = {}): Promise<Accepted> {
  return bench.inTenant((tx) => orderFromBackup(tx, ordering(), pod.id, backupId, { hostname: "copy", ...wish }));
}

function destroyLast(pod: Pod): Promise<Accepted> {
  return bench.inTenant((tx) => destroyAfterBackup(tx, bench.who, pod.id));
}

function noHost(): never {
  throw new Error("no host");
}

describe("a backup", () => {
  test("counts when its archive was read, and says what the pod was", async () => {
    const { pod, backupId } = await bench.backedUp();
    const backup = await bench.backupOf(backupId);
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
    const { backupId } = await bench.backedUp("stopped");
    expect((await bench.backupOf(backupId)).mode).toBe("stop");
  });

  test("falls back where the storage has no snapshots after all", async () => {
    const [node = noHost()] = await bench.nodes(1);
    bench.work();
    const pod = await bench.podOn(node);
    bench.hosts.script = ({ op }) =>
      op?.$case === "backup" && op.value.mode === "snapshot"
        ? { state: "failed", errorCode: "SNAPSHOT_UNSUPPORTED", retryable: false }
        : undefined;
    const { backupId } = await bench.done(bench.backUp(pod));
    expect(await bench.backupOf(backupId)).toMatchObject({ state: "available", mode: "suspend" });
  });

  test("without a storage for it is refused, and leaves nothing", async () => {
    const [node = noHost()] = await bench.nodes(1, { backups: false });
    bench.work();
    const pod = await bench.podOn(node);
    await expect(bench.backUp(pod)).rejects.toMatchObject({ code: "NO_BACKUP_STORAGE" });
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
    const { task, backupId } = await bench.backUp(pod);
    expect(await bench.end(task.id)).toEqual({ state: "failed", errorCode });
    expect(await bench.backupOf(backupId)).toMatchObject({ state: "failed", errorCode });
    await expect(bench.restore(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_AVAILABLE" });
  });

  test("that people ask for is one of five at most", async () => {
    const { pod, backupId } = await bench.backedUp();
    await bench.db.system.execute(sql`
      INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, generation, vmid, spec, finished_at)
      SELECT gen_random_uuid(), tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, generation, vmid, spec, finished_at
      FROM cloud_pod_backups, generate_series(1, 4) WHERE id = ${backupId}`);
    await expect(bench.backUp(pod)).rejects.toMatchObject({ code: "BACKUP_LIMIT_REACHED" });
  });
});

describe("a new pod of a backup", () => {
  test("is an order of its own, on any host that sees the archive, also when the old pod is gone", async () => {
    const { pod, backupId, nodes } = await bench.backedUp();
    const written = bench.writtenIn(pod);
    const { task } = await bench.inTenant((tx) => destroyAfterBackup(tx, bench.who, pod.id));
    await bench.end(task.id);
    await bench.db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE id = ${nodes[0].id}`);
    const { pod: ordered, task: order } = await bench.done(asNewPod(pod, backupId));
    expect(order.deadlineAt.getTime() - order.createdAt.getTime()).toBeGreaterThan(archiveTimeoutMs);
    const made = await bench.podNow(ordered.id);
    expect(made).toMatchObject({
      status: "active",
      nodeId: nodes[1].id,
      planCode: "CLOUD_POD_STARTER",
      hostname: "copy",
    });
    expect(made.vmid).not.toBe(pod.vmid);
    expect(made.mac).not.toBe(pod.mac);
    expect(made.subscriptionId).not.toBe(pod.subscriptionId);
    expect(bench.writtenIn(made)).toBe(written);
    expect(bench.hosts.carriedOut.filter((one) => one.startsWith("ensureContainer"))).toHaveLength(1);
  });

  test("has the hours that its archive needs also when it is tried again", async () => {
    const { pod, backupId } = await bench.backedUp();
    bench.hosts.script = failing("restore", "STORAGE_FULL");
    const { task } = await asNewPod(pod, backupId);
    expect((await bench.end(task.id)).state).toBe("failed");
    const failed = await findTask(bench.db.system, task.id);
    expect(await bench.inSystem((tx) => prepareRetry(tx, failed))).toBeGreaterThan(archiveTimeoutMs);
  });

  test("needs a disk that is large enough, and a host that sees the archive", async () => {
    const { pod, backupId } = await bench.backedUp();
    const small = { resources: { cores: 1, memoryMb: 512, diskGb: 29 } };
    await expect(asNewPod(pod, backupId, small)).rejects.toMatchObject({ code: "DISK_TOO_SMALL" });
    await bench.db.system.execute(sql`
      UPDATE node_storages SET available = false WHERE storage_id IN (SELECT id FROM storages WHERE holds_backups)`);
    await expect(asNewPod(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_REACHABLE" });
  });
});

describe("a last backup", () => {
  test("is made and read before anything is removed, and stays for a month", async () => {
    const { pod } = await bench.backedUp();
    await bench.done(destroyLast(pod));
    expect((await bench.podNow(pod.id)).status).toBe("deleted");
    expect(bench.hosts.copies(pod.vmid).here).toEqual([]);
    const [last] = await bench.db.system.query<Backup>(
      sql`${selectBackups} WHERE b.pod_id = ${pod.id} AND b.kind = 'final'`,
    );
    expect(last?.state).toBe("available");
    expect((last?.expiresAt?.getTime() ?? 0) - Date.now()).toBeGreaterThan(29 * 86_400_000);
  });

  test("that cannot be made leaves the pod as it is", async () => {
    const { pod } = await bench.backedUp();
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

describe("the dry run of a restore in place", () => {
  const plan = (podId: string, backupId: string) => bench.inTenant((tx) => planRestore(tx, bench.who, podId, backupId));

  test("tells what its host is then told, and waits for nobody who works on the pod", async () => {
    const { pod, backupId } = await bench.backedUp();
    const { backupId: newer } = await bench.done(bench.backUp(pod));
    const planned = await bench.db.system.transaction(async (tx) => {
      await tx.execute(sql`SELECT FROM cloud_pods WHERE id = ${pod.id} FOR UPDATE`);
      await tx.execute(sql`SELECT FROM cloud_pod_backups WHERE pod_id = ${pod.id} FOR UPDATE`);
      const patient = bench.inTenant(async (other) => {
        await other.execute(sql`SET LOCAL lock_timeout = '20ms'`);
        await requestRestore(other, bench.who, pod.id, backupId);
      });
      await expect(patient, "negative control: the request waits").rejects.toThrow("lock timeout");
      return await plan(pod.id, backupId);
    });
    expect(planned).toMatchObject({ backup: { id: backupId }, newerBackups: 1, runs: true });
    expect(await plan(pod.id, newer)).toMatchObject({ newerBackups: 0 });
    const { task } = await bench.done(bench.restore(pod, backupId));
    const told = await bench.db.system.query<{ command: unknown }>(
      sql`SELECT command FROM node_commands WHERE task_id = ${task.id} AND op <> 'inspect' ORDER BY revision`,
    );
    const operations = planned.commands.map(({ command }) => command.op);
    expect(operations).toHaveLength(4);
    expect(told.map(({ command }) => Command.fromJSON(command).op)).toEqual(operations);
  });

  test("is refused as the request is", async () => {
    const { pod, backupId } = await bench.backedUp();
    const refused = async (code: string, id = backupId) => {
      await expect(plan(pod.id, id), code).rejects.toMatchObject({ code });
      await expect(bench.restore(pod, id), code).rejects.toMatchObject({ code });
    };
    await refused("BACKUP_NOT_FOUND", newId());
    const damage = (at: string | null) =>
      bench.db.system.execute(sql`UPDATE cloud_pod_backups SET damaged_at = ${at} WHERE id = ${backupId}`);
    await damage("now");
    await refused("BACKUP_DAMAGED");
    await damage(null);
    const outdated = { ...bench.who, ifMatch: pod.version + 1 };
    await expect(bench.inTenant((tx) => planRestore(tx, outdated, pod.id, backupId))).rejects.toMatchObject({
      code: "VERSION_MISMATCH",
    });
    bench.hosts.away.add(pod.nodeId ?? "");
    const { task } = await bench.restore(pod, backupId);
    await refused("POD_BUSY");
    bench.hosts.away.clear();
    await bench.end(task.id);
    expect(await plan(pod.id, backupId)).toMatchObject({ backup: { id: backupId } });
  });
});

describe("the dry run of a new pod of a backup", () => {
  const plan = (pod: Pod, backupId: string, wish: Partial<RestoreWish> = {}) => {
    const who = { ...ordering(), now: new Date() };
    return bench.inTenant((tx) => planNewPod(tx, who, pod.id, backupId, { hostname: "copy", ...wish }));
  };

  /** How much there is of everything that the order would write. */
  async function traces(): Promise<unknown> {
    const of = (table: Sql) => sql`(SELECT count(*) FROM ${table} WHERE tenant_id = ${bench.tenantId})`;
    const [row] = await bench.db.system.query(sql`
      SELECT ${of(sql`cloud_pods`)} AS pods, ${of(sql`cloud_pod_provisioning_tasks`)} AS tasks, ${of(sql`node_claims`)} AS claims,
        ${of(sql`node_commands`)} AS commands, ${of(sql`subscriptions`)} AS subscriptions, ${of(sql`audit_log`)} AS audited,
        ${of(sql`placement_failures`)} AS failures, (SELECT last_value FROM vmid_seq) AS vmid,
        (SELECT used_cloud_pods FROM cloud_pod_quotas WHERE tenant_id = ${bench.tenantId}) AS quota`);
    return row;
  }

  test("tells what is then ordered, and leaves nothing behind", async () => {
    const { pod, backupId, nodes } = await bench.backedUp();
    await bench.db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE id = ${nodes[0].id}`);
    const before = await traces();
    const { commands, ...rest } = await plan(pod, backupId);
    expect(rest).toMatchObject({
      pod: { id: pod.id },
      backup: { id: backupId },
      newerBackups: 0,
      hostname: "copy",
      planned: {
        size: { cores: 1, memoryMb: 1_024, diskGb: 30, plan: { code: "CLOUD_POD_STARTER" } },
        quota: { allowed: true },
        placement: { node: nodes[1].name },
        price: { amount: "1.49", per: "month" },
      },
    });
    expect(await traces()).toEqual(before);

    const { pod: ordered, task } = await bench.done(asNewPod(pod, backupId));
    expect(await traces(), "negative control: an order leaves something").not.toEqual(before);
    const { nodeId, mac, diskGb } = await bench.podNow(ordered.id);
    expect({ nodeId, diskGb }).toEqual({ nodeId: nodes[1].id, diskGb: 30 });
    const told = await bench.db.system.query<{ command: unknown }>(
      sql`SELECT command FROM node_commands WHERE task_id = ${task.id} AND op <> 'inspect' ORDER BY revision`,
    );
    const opOf = ({ op }: Command) => JSON.stringify(Command.toJSON(Command.fromPartial({ op })));
    expect(commands.map(({ node }) => node)).toEqual([nodes[1].name, nodes[1].name]);
    expect(told.map(({ command }) => opOf(Command.fromJSON(command)))).toEqual(
      commands.map(({ command }) => opOf(command).replaceAll(made.mac, mac)),
    );
  });

  test("is refused as the order is, and says what the order would lack", async () => {
    const { pod, backupId } = await bench.backedUp();
    const small = { resources: { cores: 1, memoryMb: 512, diskGb: 29 } };
    const refused = async (code: string, wish: Partial<RestoreWish> = {}, id = backupId) => {
      await expect(plan(pod, id, wish), code).rejects.toMatchObject({ code });
      await expect(asNewPod(pod, id, wish), code).rejects.toMatchObject({ code });
    };
    const change = (what: Sql) => bench.db.system.execute(what);
    await refused("BACKUP_NOT_FOUND", {}, newId());
    await refused("PLAN_NOT_FOUND", { planCode: "PALACE" });
    await change(sql`UPDATE cloud_pod_backups SET damaged_at = now() WHERE id = ${backupId}`);
    await refused("BACKUP_DAMAGED");
    await change(sql`UPDATE cloud_pod_backups SET damaged_at = NULL WHERE id = ${backupId}`);
    expect(await plan(pod, backupId)).toMatchObject({ planned: { quota: { allowed: true } } });

    await change(sql`UPDATE nodes SET schedulable = false`);
    expect(await plan(pod, backupId)).toMatchObject({ planned: { placement: { node: null } }, commands: [] });
    await expect(asNewPod(pod, backupId)).rejects.toMatchObject({ code: "NO_CAPACITY" });
    await change(sql`
      UPDATE cloud_pod_quotas SET source = 'tenant', max_cloud_pods = used_cloud_pods WHERE tenant_id = ${bench.tenantId}`);
    expect(await plan(pod, backupId)).toMatchObject({ planned: { quota: { allowed: false } } });
    await expect(asNewPod(pod, backupId)).rejects.toMatchObject({ code: "QUOTA_EXCEEDED" });
    // What can never be comes first.
    await refused("DISK_TOO_SMALL", small);
    await change(
      sql`UPDATE node_storages SET available = false WHERE storage_id IN (SELECT id FROM storages WHERE holds_backups)`,
    );
    await refused("BACKUP_NOT_REACHABLE");
  });
});

test("a backup that something is made from is not deleted", async () => {
  const { pod, backupId } = await bench.backedUp();
  bench.hosts.away.add(pod.nodeId ?? "");
  const { task } = await bench.restore(pod, backupId);
  const drop = () => bench.inTenant((tx) => deleteBackup(tx, bench.who, pod.id, backupId, new Date()));
  await expect(drop()).rejects.toMatchObject({ code: "BACKUP_IN_USE" });
  bench.hosts.away.clear();
  await bench.end(task.id);
  expect((await drop()).deleteRequestedAt).not.toBeNull();
  await expect(bench.restore(pod, backupId)).rejects.toMatchObject({ code: "BACKUP_NOT_AVAILABLE" });
});
