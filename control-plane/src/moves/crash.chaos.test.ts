import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { untilRung } from "../../../test/support/bell.ts";
import { dyingAt } from "../../../test/support/dying-worker.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import type { FleetCommand, FleetEnd } from "../../../test/support/scripted-fleet.ts";
import { spawnKilledWorker } from "../../../test/support/spawn-killed-worker.ts";
import { sql } from "../platform/sql.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { acceptCopy } from "./accept-copy.ts";
import { clearLeftCopies } from "./left-copies.ts";

const bench = new MoveWorkbench();
const doors = () => ({ db: bench.db.system, log: pino({ level: "silent" }) });

/** One copy, running, on the pod's host; one claim, one open stay, no archive, and nothing written is lost. */
async function expectOneCopy(pod: Pod): Promise<void> {
  const now = await bench.podNow(pod.id);
  const at = now.nodeId ?? "";
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [at], running: [at] });
  expect(bench.hosts.at(at, pod.vmid)).toMatchObject({ written: 1, generation: now.generation });
  const { claims, stays } = await bench.books(pod.id);
  expect(claims).toEqual([{ nodeId: at, generation: now.generation, purpose: "home" }]);
  expect(stays.filter(({ open }) => open)).toEqual([{ nodeId: at, open: true }]);
  expect([...bench.hosts.archives]).toEqual([]);
}

const startFailsOnTarget =
  (target: BenchNode) =>
  (command: FleetCommand): FleetEnd | undefined =>
    command.nodeId === target.id && command.op?.$case === "ensurePower"
      ? { state: "failed", errorCode: "START_FAILED", retryable: false, hadEffect: true }
      : undefined;

/** Moves a pod to and fro, the worker dying one boundary later each time, until one gets through. */
async function dieEverywhere(
  nodes: readonly BenchNode[],
  script: (target: BenchNode) => typeof bench.hosts.script,
  from = 1,
): Promise<string[]> {
  const first = bench.work();
  const pod = await bench.podOn(nodes[0] ?? noHost());
  await first.stop();
  const died: string[] = [];
  for (let nth = from; ; nth++) {
    const now = await bench.podNow(pod.id);
    const target = nodes.find(({ id }) => id !== now.nodeId) ?? noHost();
    bench.hosts.script = script(target);
    const task = await bench.move(pod, target);
    const death = dyingAt(nth);
    const worker = bench.work(death.onBoundary);
    await untilRung(
      "a death or an end",
      bench.db.system,
      async () => death.where() !== undefined || bench.isOver(task),
    );
    await worker.stop();
    await bench.db.system.execute(
      sql`UPDATE cloud_pod_provisioning_tasks SET lease_until = NULL, run_after = now() WHERE id = ${task}`,
    );
    const survivor = bench.work();
    await bench.end(task);
    await survivor.stop();
    await expectOneCopy(pod);
    const where = death.where();
    if (where === undefined) return died;
    died.push(where);
  }
}

function noHost(): never {
  throw new Error("no host");
}

const nothing = (): ((command: FleetCommand) => FleetEnd | undefined) => () => undefined;
/** Only the host can tell that a disk hangs on its template's. */
const refusesToMigrate = () => linkedClone;
function linkedClone(command: FleetCommand): FleetEnd | undefined {
  if (command.op?.$case !== "migrate") return undefined;
  return { state: "failed", errorCode: "LINKED_CLONE_NOT_MOVABLE", retryable: false };
}

describe("kill -9 of the worker at every boundary of a move ends with one running copy", () => {
  test("by archive", async () => {
    const died = await dieEverywhere(await bench.nodes(2), nothing);
    for (const step of [
      "check",
      "stop",
      "backup",
      "verify",
      "restore",
      "start",
      "switch",
      "remove",
      "forget-archive",
      "release",
    ])
      for (const boundary of ["stepped", "committed"]) expect(died).toContain(`${boundary} ${step}`);
  }, 600_000);

  test("inside a cluster", async () => {
    const died = await dieEverywhere(await bench.nodes(2, { cluster: true }), nothing);
    for (const step of ["transfer", "confirm", "start", "switch"]) expect(died).toContain(`committed ${step}`);
  }, 600_000);

  test("inside a cluster by archive, as a linked clone goes", async () => {
    const died = await dieEverywhere(await bench.nodes(2, { cluster: true }), refusesToMigrate);
    for (const step of [
      "transfer",
      "backup",
      "stop",
      "verify",
      "free-id",
      "restore",
      "start",
      "switch",
      "forget-archive",
    ])
      for (const boundary of ["stepped", "committed"]) expect(died).toContain(`${boundary} ${step}`);
  }, 600_000);

  test("that fails when the copy was told to run", async () => {
    // The way there is that of the first test.
    const died = await dieEverywhere(await bench.nodes(2), startFailsOnTarget, 20);
    for (const step of ["undo-restore", "undo-start", "undo-backup", "undo-check"])
      expect(died).toContain(`committed ${step}`);
  }, 600_000);
});

describe("a source inside a cluster that has given its container up", () => {
  async function cluster(): Promise<{ from: BenchNode; to: BenchNode; pod: Pod }> {
    const [from = noHost(), to = noHost()] = await bench.nodes(2, { cluster: true });
    bench.work();
    const pod = await bench.podOn(from);
    // A linked clone, which only an archive can take along.
    await bench.db.system.execute(
      sql`UPDATE storages SET type = 'lvmthin' WHERE node_id = ${from.id} AND holds_root_disks`,
    );
    return { from, to, pod };
  }

  test("and could not say so gets it back", async () => {
    const { from, to, pod } = await cluster();
    bench.hosts.script = (command) =>
      command.nodeId === from.id && command.op?.$case === "ensureAbsent"
        ? { state: "failed", errorCode: "BROKEN", retryable: false, hadEffect: true }
        : undefined;
    expect((await bench.end(await bench.move(pod, to))).state).toBe("failed");
    await expectOneCopy(pod);
  });

  test.each([
    ["before it has made anything", false],
    ["after it has made its half", true],
  ])("to a target that falls silent for long %s gets it back", async (_, hasHalf) => {
    const { from, to, pod } = await cluster();
    bench.hosts.script = (command) => {
      if (command.op?.$case === (hasHalf ? "restore" : "ensureAbsent")) bench.hosts.away.add(to.id);
      const isHalf = command.op?.$case === "restore" && command.nodeId === to.id;
      return isHalf ? { state: "interrupted", errorCode: "INTERRUPTED", hadEffect: true } : undefined;
    };
    const task = await bench.move(pod, to);
    const asked = sql`SELECT FROM node_commands WHERE pod_id = ${pod.id} AND op = 'restore' AND state = 'pending'`;
    // The restore that waits for the host, and not the one before it, which silences the host.
    const waiting = async () => bench.hosts.away.has(to.id) && (await bench.db.system.query(asked)).length === 1;
    await untilRung("a restore that nobody answers", bench.db.system, waiting);
    const silent = (minutes: number) =>
      bench.inSystem(async (tx) => {
        await tx.execute(sql`
          UPDATE node_status SET state = 'offline', session_connected = false, state_since = now() - ${minutes} * interval '1 minute'
          WHERE node_id = ${to.id}`);
        await tx.execute(sql`UPDATE cloud_pod_provisioning_tasks SET run_after = now() WHERE id = ${task}`);
      });
    const looked = sql`SELECT state FROM cloud_pod_provisioning_tasks WHERE id = ${task} AND run_after > now()`;
    await silent(9);
    await expect.poll(() => bench.db.system.query(looked), { timeout: 60_000 }).toEqual([{ state: "waiting" }]);
    await silent(11);
    if (hasHalf) {
      const refused = sql`SELECT FROM node_commands WHERE task_id = ${task} AND node_id = ${from.id} AND error_code = 'ON_OTHER_NODE'`;
      await expect
        .poll(async () => (await bench.db.system.query(refused)).length, { timeout: 60_000 })
        .toBeGreaterThan(0);
      expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [to.id], running: [] });
      await bench.db.system.execute(
        sql`UPDATE node_status SET state = 'online', session_connected = true WHERE node_id = ${to.id}`,
      );
      bench.hosts.away.clear();
    }
    expect(await bench.end(task)).toEqual({ state: "failed", errorCode: "TARGET_NOT_ONLINE" });
    expect(bench.hosts.copies(pod.vmid)).toEqual({ here: [from.id], running: [from.id] });
    expect(bench.hosts.at(from.id, pod.vmid)).toMatchObject({ written: 1 });
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: from.id });
    bench.hosts.away.clear();
    if (hasHalf) await expectOneCopy(pod);
  });

  test("and cannot get it back leaves the copy on the target as it is", async () => {
    const { to, pod } = await cluster();
    bench.hosts.keepFailedCopyOn(to.id);
    expect((await bench.end(await bench.move(pod, to))).state).toBe("failed");
    bench.hosts.script = () => undefined;
    expect((await clearLeftCopies(doors())).asked).not.toContain(to.id);
    expect(bench.hosts.copies(pod.vmid).here).toEqual([to.id]);
    expect(bench.hosts.archives.size).toBe(1);
    // Its own host tells that it has lost it: then an operator may say that the copy is the pod.
    await bench.db.system.execute(sql`UPDATE cloud_pods SET container_missing_since = now() WHERE id = ${pod.id}`);
    const accept = (nodeId: string) =>
      bench.inSystem(async (tx) =>
        acceptCopy(tx, await lockPodById(tx, pod.id), nodeId, { requestId: newId() }, new Date()),
      );
    await expect(accept(newId())).rejects.toMatchObject({ code: "COPY_NOT_OF_A_MOVE" });
    expect(await bench.end((await accept(to.id)).id)).toEqual({ state: "succeeded", errorCode: null });
    await expectOneCopy(pod);
    expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: to.id, containerMissingSince: null });
    expect(bench.hosts.archives.size).toBe(0);
  });
});

describe("an agent that dies in the middle of any command of a move leaves one running copy", () => {
  test.each([
    ["before it did anything", {}],
    ["after it had done it", { hadEffect: true as const }],
  ])(
    "%s",
    async (_, how) => {
      const worker = bench.work();
      const [alone, clustered] = [await bench.nodes(2), await bench.nodes(2, { cluster: true })];
      for (const [nodes, refuses] of [
        [alone, nothing()],
        [clustered, nothing()],
        [await bench.nodes(2, { cluster: true }), linkedClone],
      ] as const) {
        const pod = await bench.podOn(nodes[0] ?? noHost());
        for (let nth = 1, hasDied = true; hasDied; nth++) {
          hasDied = false;
          let seen = 0;
          bench.hosts.script = (command) => {
            const refusal = refuses(command);
            if (refusal !== undefined) return refusal;
            seen += 1;
            if (seen !== nth) return undefined;
            hasDied = true;
            return { state: "interrupted", errorCode: "INTERRUPTED", ...how };
          };
          const now = await bench.podNow(pod.id);
          await bench.end(await bench.move(pod, nodes.find(({ id }) => id !== now.nodeId) ?? noHost()));
          await expectOneCopy(pod);
        }
      }
      await worker.stop();
    },
    600_000,
  );
});

test("a worker in a process of its own that is killed in the middle of its transaction leaves one running copy", async () => {
  const first = bench.work();
  const nodes = await bench.nodes(2);
  const pod = await bench.podOn(nodes[0] ?? noHost());
  await first.stop();
  for (const nth of [5, 14, 23]) {
    const now = await bench.podNow(pod.id);
    const task = await bench.move(pod, nodes.find(({ id }) => id !== now.nodeId) ?? noHost());
    expect(await spawnKilledWorker(bench.db, nth, () => bench.isOver(task))).toMatch(/migrate/);
    const survivor = bench.work();
    expect((await bench.end(task)).state).toBe("succeeded");
    await survivor.stop();
    await expectOneCopy(pod);
  }
}, 600_000);
