import { newId } from "@cloudpods/shared/ids";
import { beforeEach, describe, expect, test } from "vitest";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import type { FleetCommand, FleetEnd } from "../../../test/support/scripted-fleet.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import { readHistory } from "./read-surroundings.ts";

const bench = new MoveWorkbench();
beforeEach(() => {
  bench.work();
});

async function moveRow(podId: string) {
  const [row] = await bench.db.system.query<Record<string, unknown>>(sql`
    SELECT strategy, state, downtime_ms AS "downtimeMs", disk_gb AS "diskGb", error_code AS "errorCode", switched_at IS NOT NULL AS switched
    FROM cloud_pod_moves WHERE pod_id = ${podId} ORDER BY id DESC LIMIT 1`);
  return row;
}

/** The pod is on the host as it was, with one claim and one open stay there, and nothing is left elsewhere. */
async function expectAt(node: BenchNode, pod: Pod, power: "running" | "stopped", written: number): Promise<void> {
  const now = await bench.podNow(pod.id);
  expect(now).toMatchObject({ nodeId: node.id, status: "active", desiredPower: power });
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [node.id], running: power === "running" ? [node.id] : [] });
  expect(bench.hosts.at(node.id, pod.vmid)).toMatchObject({ written, generation: now.generation, mac: pod.mac });
  const { claims, stays } = await bench.books(pod.id);
  expect(claims).toEqual([{ nodeId: node.id, generation: now.generation, purpose: "home" }]);
  expect(stays.filter(({ open }) => open)).toEqual([{ nodeId: node.id, open: true }]);
  expect([...bench.hosts.archives]).toEqual([]);
}

const failing =
  (op: string, at: BenchNode, end: FleetEnd): ((command: FleetCommand) => FleetEnd | undefined) =>
  (command) =>
    command.op?.$case === op && command.nodeId === at.id ? end : undefined;

/** Its host stops the pod for it once, for so long in vain. */
function failsOnce(op: string, at: BenchNode, awayMs: number): void {
  const end = { state: "failed", errorCode: "INTERRUPTED", retryable: true, awayMs } as const;
  bench.hosts.script = (command) => {
    const failed = failing(op, at, end)(command);
    if (failed !== undefined) bench.hosts.script = () => undefined;
    return failed;
  };
}

describe("between hosts that only share a storage for backups", () => {
  test("a running pod moves with everything it wrote, and its downtime is measured", async () => {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    failsOnce("backup", from, 3_600_000);
    expect(await bench.end(await bench.move(pod))).toEqual({ state: "succeeded", errorCode: null });
    await expectAt(to, pod, "running", 1);
    expect(await moveRow(pod.id)).toMatchObject({ strategy: "backup-restore", state: "moved", diskGb: pod.diskGb });
    expect((await moveRow(pod.id))?.["downtimeMs"]).toBeGreaterThan(3_600_000);
    expect((await moveRow(pod.id))?.["downtimeMs"]).toBeLessThan(3_660_000);
    // Everything was ready on the target before the source lost anything.
    expect(bench.hosts.carriedOut.slice(-6)).toEqual([
      `backup@${from.name}`,
      `ensurePower@${from.name}`,
      `restore@${to.name}`,
      `ensurePower@${to.name}`,
      `ensureAbsent@${from.name}`,
      `deleteBackup@${to.name}`,
    ]);
  });

  test("a pod runs on while its host has other archives to make, and that wait is no downtime", async () => {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    bench.hosts.away.add(from.id);
    const task = await bench.move(pod, to);
    const waiting = sql`SELECT op FROM node_commands WHERE pod_id = ${pod.id} AND node_id = ${from.id} AND finished_at IS NULL`;
    await expect.poll(() => bench.db.system.query(waiting), { timeout: 60_000 }).toEqual([{ op: "backup" }]);
    expect(bench.hosts.copies(pod.vmid).running).toEqual([from.id]);
    await bench.db.system.execute(
      sql`UPDATE cloud_pod_moves SET begun_at = begun_at - interval '1 hour' WHERE pod_id = ${pod.id}`,
    );
    bench.hosts.away.clear();
    expect((await bench.end(task)).state).toBe("succeeded");
    expect((await moveRow(pod.id))?.["downtimeMs"]).toBeLessThan(60_000);
  });

  test("whose place is lost while it waits stays where it is, running", async () => {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    bench.hosts.away.add(from.id);
    const task = await bench.move(pod, to);
    const waiting = sql`SELECT FROM node_commands WHERE pod_id = ${pod.id} AND op = 'backup' AND finished_at IS NULL`;
    await expect.poll(async () => (await bench.db.system.query(waiting)).length, { timeout: 60_000 }).toBe(1);
    await bench.db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE id = ${to.id}`);
    await bench.db.system.execute(sql`UPDATE cloud_pod_provisioning_tasks SET run_after = now() WHERE id = ${task}`);
    await expect.poll(async () => (await bench.db.system.query(waiting)).length, { timeout: 60_000 }).toBe(0);
    bench.hosts.away.clear();
    expect(await bench.end(task)).toEqual({ state: "failed", errorCode: "TARGET_CORDONED" });
    expect(bench.hosts.carriedOut).not.toContain(`backup@${from.name}`);
    await expectAt(from, pod, "running", 1);
  });

  test.each(["verify_backup", "restore"])("whose target dies before its %s goes on where it was", async (op) => {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    if (op === "verify_backup") bench.hosts.away.add(to.id);
    bench.hosts.script = (command) => {
      if (command.op?.$case === "verifyBackup") bench.hosts.away.add(to.id);
      return undefined;
    };
    const task = await bench.move(pod, to);
    const waiting = sql`SELECT FROM node_commands WHERE pod_id = ${pod.id} AND op = ${op} AND finished_at IS NULL`;
    await expect.poll(async () => (await bench.db.system.query(waiting)).length, { timeout: 60_000 }).toBe(1);
    expect(bench.hosts.copies(pod.vmid).running).toEqual([]);
    await bench.db.system.execute(
      sql`UPDATE node_status SET state = 'offline', session_connected = false, state_since = now() - interval '3 minutes' WHERE node_id = ${to.id}`,
    );
    await bench.db.system.execute(sql`UPDATE cloud_pod_provisioning_tasks SET run_after = now() WHERE id = ${task}`);
    expect(await bench.end(task)).toEqual({ state: "failed", errorCode: "TARGET_NOT_ONLINE" });
    expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [from.id], running: [from.id] });
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: from.id, desiredPower: "running" });
  });

  test("a pod that ran again after its archive was made stays with what it wrote since, and moves the next time", async () => {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    // Its host boots after it has made the archive, before anybody has heard of it.
    bench.hosts.script = (command) => {
      if (command.op?.$case !== "ensurePower" || command.nodeId !== from.id) return undefined;
      bench.hosts.start(from.id, pod.vmid);
      bench.hosts.write(pod.vmid);
      bench.hosts.script = () => undefined;
      return undefined;
    };
    expect(await bench.end(await bench.move(pod, to))).toEqual({ state: "failed", errorCode: "ARCHIVE_OUTDATED" });
    await expectAt(from, pod, "running", 2);
    expect((await bench.end(await bench.move(pod, to))).state).toBe("succeeded");
    await expectAt(to, pod, "running", 2);
  });

  test("a stopped pod moves stopped and stays stopped", async () => {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from, "stopped");
    expect((await bench.end(await bench.move(pod, to))).state).toBe("succeeded");
    await expectAt(to, pod, "stopped", 0);
    expect((await moveRow(pod.id))?.["downtimeMs"]).toBeNull();
  });

  test("and back again, under ever higher generations", async () => {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    for (const [target, generation] of [
      [to, 2n],
      [from, 3n],
      [to, 4n],
    ] as const) {
      expect((await bench.end(await bench.move(pod, target))).state).toBe("succeeded");
      expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: target.id, generation });
    }
    await expectAt(to, pod, "running", 1);
  });

  test.each([
    ["ensurePower", "source"],
    ["backup", "source"],
    ["verifyBackup", "target"],
    ["restore", "target"],
    ["ensurePower", "target"],
  ] as const)("a %s that fails on the %s leaves the pod as it was", async (op, side) => {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    let hasFailed = false;
    bench.hosts.script = (command) => {
      const end = failing(op, side === "source" ? from : to, {
        state: "failed",
        errorCode: "BROKEN",
        retryable: false,
        ...(op === "backup" ? { awayMs: 4_000 } : {}),
      })(command);
      if (end === undefined || hasFailed) return undefined;
      hasFailed = true;
      return end;
    };
    const told = await readHistory(bench.db.system);
    expect(await bench.end(await bench.move(pod))).toEqual({ state: "failed", errorCode: "BROKEN" });
    await expectAt(from, pod, "running", 1);
    expect(await moveRow(pod.id)).toMatchObject({
      state: "undone",
      switched: false,
      errorCode: "BROKEN",
      // For an archive that was never made as long as its host says; else until it ran again.
      downtimeMs: op === "backup" ? 4_000 : expect.any(Number),
    });
    // What came to nothing says nothing of the next one.
    expect(await readHistory(bench.db.system)).toEqual(told);
    // Nothing stands in the way of the next try.
    expect((await bench.end(await bench.move(pod, to))).state).toBe("succeeded");
    await expectAt(to, pod, "running", 1);
  });

  test("an archive that the target does not see is found before anything is given up", async () => {
    const [from] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    bench.hosts.script = (command) => {
      if (command.op?.$case === "verifyBackup") bench.hosts.archives.clear();
      return undefined;
    };
    expect(await bench.end(await bench.move(pod))).toEqual({ state: "failed", errorCode: "ARCHIVE_NOT_SEEN" });
    await expectAt(from, pod, "running", 1);
  });

  test("a copy that was told to run is gone before the source may run again", async () => {
    const [from, to] = twoOf(await bench.nodes(2));
    const pod = await bench.podOn(from);
    // It starts, and says that it did not.
    bench.hosts.script = failing("ensurePower", to, {
      state: "failed",
      errorCode: "START_FAILED",
      retryable: false,
      hadEffect: true,
    });
    expect((await bench.end(await bench.move(pod))).errorCode).toBe("START_FAILED");
    await expectAt(from, pod, "running", 1);
    expect(bench.hosts.carriedOut.slice(-3)).toEqual([
      `ensureAbsent@${to.name}`,
      `ensurePower@${from.name}`,
      `deleteBackup@${from.name}`,
    ]);
  });
});

test("the audit log tells of every move from where to where, and what became of it", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  bench.hosts.script = failing("restore", to, { state: "failed", errorCode: "STORAGE_FULL", retryable: false });
  await bench.end(await bench.move(pod, to));
  bench.hosts.script = () => undefined;
  await bench.end(await bench.move(pod, to));
  const told = sql`SELECT action, detail FROM audit_log WHERE target_id = ${pod.id} AND action IN ('pod.moved', 'pod.move-failed') ORDER BY id`;
  const way = { from: from.name, to: to.name, purpose: "migrate", strategy: "backup-restore" };
  expect(await bench.db.system.query(told)).toEqual([
    { action: "pod.move-failed", detail: { ...way, code: "STORAGE_FULL", podIsOn: from.name } },
    { action: "pod.moved", detail: { ...way, generation: "3" } },
  ]);
});

describe("inside a cluster", () => {
  test("samples of the target count from when Proxmox may run the pod there, before anybody has heard of it", async () => {
    const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
    const pod = await bench.podOn(from);
    bench.hosts.away.add(from.id);
    const task = await bench.move(pod, to);
    const asked = sql`SELECT FROM node_commands WHERE pod_id = ${pod.id} AND op = 'migrate'`;
    await expect.poll(async () => (await bench.db.system.query(asked)).length, { timeout: 60_000 }).toBe(1);
    expect((await bench.books(pod.id)).stays).toEqual([
      { nodeId: from.id, open: true },
      { nodeId: to.id, open: true },
    ]);
    bench.hosts.away.clear();
    expect((await bench.end(task)).state).toBe("succeeded");
  });

  test("Proxmox moves the pod, and its downtime is what the host measured, with the try that came to nothing", async () => {
    const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
    const pod = await bench.podOn(from);
    failsOnce("migrate", from, 2_000);
    expect((await bench.end(await bench.move(pod))).state).toBe("succeeded");
    await expectAt(to, pod, "running", 1);
    expect(await moveRow(pod.id)).toMatchObject({ strategy: "cluster-migrate", state: "moved", downtimeMs: 3_500 });
    expect(bench.hosts.carriedOut).not.toContain(`backup@${from.name}`);
  });

  test("a shared disk stays where it is and is claimed once", async () => {
    const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
    const shared = newId();
    await bench.db.system.execute(sql`
      INSERT INTO storages (id, cluster_id, name, type, shared, total_gb) SELECT ${shared}, cluster_id, 'ceph', 'rbd', true, 30 FROM nodes WHERE id = ${from.id}`);
    await bench.db.system.execute(
      sql`INSERT INTO node_storages (node_id, storage_id) VALUES (${from.id}, ${shared}), (${to.id}, ${shared})`,
    );
    await bench.db.system.execute(sql`UPDATE nodes SET default_storage = 'ceph' WHERE id IN (${from.id}, ${to.id})`);
    const pod = await bench.podOn(from);
    expect((await bench.end(await bench.move(pod))).state).toBe("succeeded");
    await expectAt(to, pod, "running", 1);
    const [storage] = await bench.db.system.query(sql`SELECT allocated_gb AS gb FROM storages WHERE id = ${shared}`);
    expect(storage).toEqual({ gb: pod.diskGb });
  });

  test("a migration that fails because its target is gone is not tried again: the pod runs on where it was", async () => {
    const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
    const pod = await bench.podOn(from);
    bench.hosts.script = failing("migrate", from, { state: "failed", errorCode: "MEMBER_OFFLINE", retryable: true });
    const task = await bench.move(pod, to);
    const failed = sql`SELECT FROM node_commands WHERE pod_id = ${pod.id} AND op = 'migrate' AND state = 'failed'`;
    await expect.poll(async () => (await bench.db.system.query(failed)).length, { timeout: 60_000 }).toBeGreaterThan(0);
    await bench.db.system.execute(sql`
      UPDATE node_status SET state = 'offline', session_connected = false, state_since = now() WHERE node_id = ${to.id}`);
    await bench.db.system.execute(sql`UPDATE cloud_pod_provisioning_tasks SET run_after = now() WHERE id = ${task}`);
    expect(await bench.end(task)).toEqual({ state: "failed", errorCode: "TARGET_NOT_ONLINE" });
    await expectAt(from, pod, "running", 1);
  });

  test("a linked clone goes by archive, and the id is given free for it", async () => {
    const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
    const pod = await bench.podOn(from);
    bench.hosts.script = failing("migrate", from, {
      state: "failed",
      errorCode: "LINKED_CLONE_NOT_MOVABLE",
      retryable: false,
    });
    expect((await bench.end(await bench.move(pod))).state).toBe("succeeded");
    await expectAt(to, pod, "running", 1);
    expect(await moveRow(pod.id)).toMatchObject({ strategy: "backup-restore" });
  });

  test("and when its restore fails it is restored where it was", async () => {
    const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
    const pod = await bench.podOn(from);
    await bench.db.system.execute(
      sql`UPDATE storages SET type = 'lvmthin' WHERE node_id = ${from.id} AND holds_root_disks`,
    );
    bench.hosts.script = failing("restore", to, { state: "failed", errorCode: "STORAGE_FULL", retryable: false });
    expect(await bench.end(await bench.move(pod))).toEqual({ state: "failed", errorCode: "STORAGE_FULL" });
    await expectAt(from, pod, "running", 1);
  });

  test("a migration that failed after Proxmox had moved the container is finished there", async () => {
    const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
    const pod = await bench.podOn(from);
    bench.hosts.script = failing("migrate", from, {
      state: "failed",
      errorCode: "MIGRATION_PROBLEMS",
      retryable: false,
      hadEffect: true,
    });
    expect((await bench.end(await bench.move(pod))).state).toBe("succeeded");
    await expectAt(to, pod, "running", 1);
  });

  test("also when nobody could tell and the move was given up", async () => {
    const [from, to] = twoOf(await bench.nodes(2, { cluster: true }));
    const pod = await bench.podOn(from);
    bench.hosts.script = (command) => {
      if (command.op?.$case !== "migrate") return undefined;
      bench.hosts.script = () => undefined;
      bench.hosts.forgetMoves = true;
      return { state: "failed", errorCode: "HOST_UNKNOWN", retryable: false, hadEffect: true };
    };
    expect(await bench.end(await bench.move(pod))).toEqual({ state: "failed", errorCode: "HOST_UNKNOWN" });
    await expect.poll(async () => (await moveRow(pod.id))?.["state"], { timeout: 60_000 }).toBe("moved");
    await expectAt(to, pod, "running", 1);
  });
});

test("negative control: the model of the hosts tells of a pod that runs twice", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await bench.podOn(from);
  // A host on which somebody starts the container, and which only says that it has stopped it.
  bench.hosts.script = (command) => {
    if (command.op?.$case !== "ensurePower" || command.nodeId !== from.id) return undefined;
    bench.hosts.start(from.id, pod.vmid);
    return { state: "succeeded", lies: true };
  };
  expect((await bench.end(await bench.move(pod, to))).state).toBe("succeeded");
  expect(bench.hosts.doubleRuns.splice(0)).not.toEqual([]);
});

function twoOf(nodes: readonly BenchNode[]): [BenchNode, BenchNode] {
  const [a, b] = nodes;
  if (a === undefined || b === undefined) throw new Error("two hosts");
  return [a, b];
}
