import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { backUp, vanish } from "../../../test/support/lost-hosts.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { clearLeftArchives } from "../moves/left-archives.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";

const bench = new MoveWorkbench();
const doors = () => ({ db: bench.db.system, log: pino({ level: "silent" }) });
const drains = drainsOf(bench);

const order = { reason: "the host burnt", confirmFenced: true };

describe("a host that dies in the middle of a drain", () => {
  /** Passes of the loop until a step of the pod's move waits for a host. */
  async function waitsAt(pod: Pod, step: string): Promise<void> {
    const rows = sql`
      SELECT t.step FROM cloud_pod_provisioning_tasks t JOIN node_commands c ON c.id = t.command_id
      WHERE t.pod_id = ${pod.id} AND t.type = 'migrate' AND c.state = 'pending'`;
    await expect
      .poll(
        async () => {
          await drains.drive();
          return await bench.db.system.query(rows);
        },
        { timeout: 60_000, interval: 20 },
      )
      .toEqual([{ step }]);
  }

  /** What was tried in vain was tried an hour ago. */
  async function timePasses(pod: Pod): Promise<void> {
    await bench.db.system.execute(
      sql`UPDATE node_commands SET finished_at = finished_at - interval '1 hour' WHERE pod_id = ${pod.id} AND op = 'delete_backup'`,
    );
  }

  const drain = { reason: "memory is replaced" };

  /** The host falls silent when it has shut the pod down and written its archive. */
  async function diesWithArchive(dead: BenchNode, pod: Pod): Promise<void> {
    bench.hosts.script = ({ op }) => {
      if (op?.$case === "backup") bench.hosts.away.add(dead.id);
      return undefined;
    };
    await drains.call("POST", `/api/nodes/${dead.name}/drain`, drain);
    await waitsAt(pod, "stop");
  }

  test.each([
    ["an older backup", true],
    ["no backup", false],
  ])("once it had made the archive: the pod comes back with everything, %s notwithstanding", async (_, hasBackup) => {
    const [dead, to] = two(await bench.nodes(2));
    const pod = await bench.podOn(dead);
    if (hasBackup) await backUp(bench, pod, dead, 86_400);
    bench.hosts.write(pod.vmid);
    await diesWithArchive(dead, pod);
    await vanish(bench, dead);
    const evacuate = `/api/nodes/${dead.name}/evacuate`;
    expect((await drains.call("POST", `${evacuate}?dryRun=true`, order)).json).toMatchObject({
      moves: [{ target: { node: to.name }, archive: { backupId: null } }],
    });
    bench.hosts.script = ({ op }) => {
      if (op?.$case === "verifyBackup") bench.hosts.away.add(to.id);
      return undefined;
    };
    await drains.call("POST", evacuate, { ...order, onNoBackup: "mark-lost" });
    const archives = hasBackup ? 2 : 1;
    // The interrupted move is over, and what it has left is in use.
    await expect
      .poll(
        async () => {
          await drains.drive();
          await timePasses(pod);
          expect(await clearLeftArchives(doors(), 0)).toEqual({ asked: [], removed: 0, givenUp: 0 });
          return (await openCommands(to)).map(({ op }) => op);
        },
        { timeout: 60_000, interval: 20 },
      )
      .toEqual(["restore"]);
    bench.hosts.script = () => undefined;
    bench.hosts.away.delete(to.id);
    expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { moved: 1 } });
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: to.id, status: "active" });
    expect(bench.hosts.at(to.id, pod.vmid)).toMatchObject({ written: 2, power: Power.POWER_RUNNING });
    expect(bench.hosts.archives.size).toBe(archives);
    await expect
      .poll(
        async () => {
          await timePasses(pod);
          await clearLeftArchives(doors(), 0);
          return bench.hosts.archives.size;
        },
        { timeout: 60_000, interval: 20 },
      )
      .toBe(archives - 1);
  });

  test("whose archive nobody sees for now: the pod is not called lost", async () => {
    const [dead] = two(await bench.nodes(2));
    const pod = await bench.podOn(dead);
    await diesWithArchive(dead, pod);
    await vanish(bench, dead);
    const seen = (available: boolean) =>
      bench.db.system.execute(sql`UPDATE node_storages SET available = ${available}`);
    await seen(false);
    await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, { ...order, onNoBackup: "mark-lost" });
    const end = await drains.driveToEnd(dead);
    await seen(true);
    expect(end).toMatchObject({ counts: { blocked: 1 }, pods: [{ blocker: { code: "BACKUP_NOT_REACHABLE" } }] });
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: dead.id, status: "active" });
  });

  test("whose archive cannot be read: the pod comes back from its backup", async () => {
    const [dead, to] = two(await bench.nodes(2));
    const pod = await bench.podOn(dead);
    await backUp(bench, pod, dead, 86_400);
    bench.hosts.write(pod.vmid);
    await diesWithArchive(dead, pod);
    const [, ours = ""] = bench.hosts.archives.keys();
    bench.hosts.unreadable.add(ours);
    await vanish(bench, dead);
    await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, order);
    expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { moved: 1 } });
    expect(bench.hosts.at(to.id, pod.vmid)).toMatchObject({ written: 1, power: Power.POWER_RUNNING });
  });

  test("once it had given the id free: the pod comes back from the archive of the move", async () => {
    const [dead, to] = two(await bench.nodes(2, { cluster: true }));
    const pod = await bench.podOn(dead);
    // A linked clone, which only an archive can take along.
    await bench.db.system.execute(
      sql`UPDATE storages SET type = 'lvmthin' WHERE node_id = ${dead.id} AND holds_root_disks`,
    );
    await bench.db.system.execute(
      sql`UPDATE node_storages SET available = false WHERE node_id NOT IN (${dead.id}, ${to.id})`,
    );
    bench.hosts.script = ({ nodeId, op }) => {
      if (nodeId === dead.id && op?.$case === "ensureAbsent") bench.hosts.away.add(dead.id);
      return op?.$case === "restore" ? { state: "failed", errorCode: "STORAGE_FULL", retryable: false } : undefined;
    };
    await drains.call("POST", `/api/nodes/${dead.name}/drain`, drain);
    await waitsAt(pod, "undo-free-id");
    await vanish(bench, dead);
    bench.hosts.script = () => undefined;
    await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, { ...order, onNoBackup: "mark-lost" });
    expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { moved: 1 } });
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: to.id, status: "active" });
    expect(bench.hosts.at(to.id, pod.vmid)).toMatchObject({ written: 1, power: Power.POWER_RUNNING });
  });
});

test("a pod whose host does not give it up runs there again, also where there is no room to restore it over itself", async () => {
  const [from, to] = two(await bench.nodes(2, { cluster: true }));
  const pod = await bench.podOn(from);
  await bench.db.system.execute(
    sql`UPDATE storages SET type = 'lvmthin' WHERE node_id = ${from.id} AND holds_root_disks`,
  );
  await bench.db.system.execute(
    sql`UPDATE node_storages SET available = false WHERE node_id NOT IN (${from.id}, ${to.id})`,
  );
  bench.hosts.script = ({ nodeId, op }) => {
    if (nodeId !== from.id) return undefined;
    if (op?.$case === "ensureAbsent") return { state: "failed", errorCode: "UNKNOWN_ERROR", retryable: false };
    return op?.$case === "restore" ? { state: "failed", errorCode: "STORAGE_FULL", retryable: false } : undefined;
  };
  await drains.call("POST", `/api/nodes/${from.name}/drain`, { reason: "memory is replaced" });
  const ends = sql`
    SELECT step, error_code AS "errorCode" FROM cloud_pod_provisioning_tasks WHERE pod_id = ${pod.id} AND type = 'migrate' AND state = 'failed' LIMIT 1`;
  const ended = async () => {
    await drains.drive();
    return (await bench.db.system.query(ends))[0];
  };
  await expect.poll(ended, { timeout: 60_000, interval: 20 }).toMatchObject({ errorCode: "UNKNOWN_ERROR" });
  expect(bench.hosts.at(from.id, pod.vmid)).toMatchObject({ written: 1, power: Power.POWER_RUNNING });
});

/** What a host was told and has not answered. */
async function openCommands(node: BenchNode): Promise<{ op: string }[]> {
  return await bench.db.system.query(
    sql`SELECT op FROM node_commands WHERE node_id = ${node.id} AND finished_at IS NULL`,
  );
}

function two(nodes: readonly BenchNode[]): [BenchNode, BenchNode] {
  const [a = noHost(), b = noHost()] = nodes;
  return [a, b];
}

function noHost(): never {
  throw new Error("no host");
}
