import { expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { vanish } from "../../../test/support/lost-hosts.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { standingStill } from "../../../test/support/standing-still.ts";
import { sql } from "../platform/sql.ts";
import { driveDrains } from "./drive-drains.ts";

/*
 * A driver whose lock is lost does not know it. Here it stands still between a decision and its deed, for as long as
 * another one and an operator need for theirs.
 */
const bench = new MoveWorkbench();
const drains = drainsOf(bench);

/** After moves whose tasks are over were ended and the facts of the first decision were read, each by itself. */
const beforeTheFirstDeed = 3;

async function driveStandingStill(before: number, meanwhile: () => Promise<unknown>): Promise<void> {
  const db = standingStill(bench.db.system, before, meanwhile);
  await driveDrains({ db, fleet: bench.fleet, onQueued: () => {} });
}

async function openMoves(): Promise<unknown[]> {
  return await bench.db.system.query(
    sql`SELECT purpose, state FROM cloud_pod_moves WHERE tenant_id = ${bench.tenantId} AND state IN ('reserved', 'moving')`,
  );
}

test("keeps no place for a drain that was cancelled and has ended since", async () => {
  const [from] = two(await bench.nodes(2));
  await bench.podOn(from);
  const where = `/api/nodes/${from.name}/drain`;
  await drains.call("POST", where, { reason: "memory is replaced" });
  await driveStandingStill(beforeTheFirstDeed, async () => {
    await drains.call("DELETE", where);
    expect(await drains.driveToEnd(from)).toMatchObject({ state: "cancelled", counts: { left: 1 } });
  });
  expect(await openMoves()).toEqual([]);
  expect((await drains.call("GET", where)).json).toMatchObject({ counts: { left: 1 } });
});

test("does not give back what another drain of the host has claimed since", async () => {
  const [from] = two(await bench.nodes(2));
  await bench.podOn(from);
  const where = `/api/nodes/${from.name}/drain`;
  const claim = async () => {
    await drains.call("POST", where, { reason: "memory is replaced" });
    await expect(
      driveStandingStill(beforeTheFirstDeed + 1, () => Promise.reject(new Error("killed"))),
    ).rejects.toThrow();
    expect(await openMoves()).toEqual([{ purpose: "drain", state: "reserved" }]);
  };
  await claim();
  await drains.call("DELETE", where);
  await driveStandingStill(beforeTheFirstDeed, async () => {
    await drains.driveToEnd(from);
    await claim();
  });
  expect(await openMoves()).toEqual([{ purpose: "drain", state: "reserved" }]);
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "drained", counts: { moved: 1 } });
});

test.each([
  ["is looked at", 3, { left: 1 }],
  ["is given up", 5, { blocked: 1 }],
] as const)("declares no pod lost whose evacuation was cancelled before it %s", async (_, later, counts) => {
  const [dead] = two(await bench.nodes(2));
  const pod = await bench.podOn(dead);
  await vanish(bench, dead);
  const where = `/api/nodes/${dead.name}`;
  const order = { reason: "the host burnt", confirmFenced: true, onNoBackup: "mark-lost" };
  expect((await drains.call("POST", `${where}/evacuate`, order)).status).toBe(202);
  // What its host is still asked for is answered first, and the moving begins by a decision of its own.
  await driveStandingStill(beforeTheFirstDeed + later, async () => {
    await drains.call("DELETE", `${where}/drain`);
    expect(await drains.driveToEnd(dead)).toMatchObject({ state: "cancelled", counts });
  });
  expect(await bench.podNow(pod.id)).toMatchObject({ nodeId: dead.id, status: "active" });
});

test("moves no more pods home at once than was asked for, and forgets none that is under way", async () => {
  const [from, to] = two(await bench.nodes(2));
  await bench.podOn(from);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, {
    reason: "memory is replaced",
    maxParallel: 1,
    returnHome: true,
  });
  await drains.driveToEnd(from);
  await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {});
  bench.hosts.away.add(to.id);
  await driveStandingStill(1, () => drains.drive());
  expect((await drains.call("GET", `/api/nodes/${from.name}/drain`)).json).toMatchObject({ counts: { returning: 1 } });
  bench.hosts.away.clear();
});

function two(nodes: readonly BenchNode[]): [BenchNode, BenchNode] {
  const [first, second] = nodes;
  if (first === undefined || second === undefined) throw new Error("two hosts were wanted");
  return [first, second];
}
