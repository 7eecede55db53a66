import { describe, expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";

const bench = new MoveWorkbench();
const drains = drainsOf(bench);

const order = { reason: "memory is replaced", returnHome: true };
const take = (node: BenchNode, schedulable: boolean) =>
  bench.db.system.execute(sql`UPDATE nodes SET schedulable = ${schedulable} WHERE id = ${node.id}`);
const shown = async (node: BenchNode) => (await drains.call("GET", `/api/nodes/${node.name}/drain`)).json;
const home = async (pods: readonly Pod[]) =>
  await Promise.all(pods.map(async ({ id }) => (await bench.podNow(id)).nodeId));

/** Pods of the first host that were emptied to the second; the third takes nobody yet. */
async function emptied(count: number): Promise<{ nodes: readonly [BenchNode, BenchNode, BenchNode]; pods: Pod[] }> {
  const [from, to, third] = await bench.nodes(3);
  if (from === undefined || to === undefined || third === undefined) throw new Error("no host");
  const pods: Pod[] = [];
  for (let index = 0; index < count; index++) pods.push(await bench.podOn(from));
  await take(third, false);
  await drains.call("POST", `/api/nodes/${from.name}/drain`, order);
  expect(await drains.driveToEnd(from)).toMatchObject({ state: "drained", counts: { moved: count } });
  await take(third, true);
  return { nodes: [from, to, third], pods };
}

/** Passes until nobody is to come home any more. */
async function isReturned(node: BenchNode): Promise<void> {
  await expect
    .poll(
      async () => {
        await drains.drive();
        return (await shown(node))["returnedAt"];
      },
      { timeout: 60_000, interval: 20 },
    )
    .not.toBeNull();
}

describe("a pod that cannot come home", () => {
  /** A home whose storage is full, which has been asked to take its pod back once. */
  async function refusedOnce() {
    const { nodes, pods } = await emptied(1);
    const [from, to] = nodes;
    bench.hosts.script = ({ nodeId, op }) =>
      nodeId === from.id && op?.$case === "restore"
        ? { state: "failed", errorCode: "STORAGE_FULL", retryable: false }
        : undefined;
    await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {});
    await expect
      .poll(() => afterPass(from), { timeout: 60_000, interval: 20 })
      .toMatchObject({
        counts: { moved: 1 },
        returnedAt: null,
        pods: [{ target: to.name, blocker: { code: "STORAGE_FULL" } }],
      });
    return { from, to, pods };
  }
  const afterPass = async (node: BenchNode) => {
    await drains.drive();
    return await shown(node);
  };
  const returns = async ({ id }: BenchNode) =>
    await bench.db.system.query(sql`SELECT FROM cloud_pod_moves WHERE to_node_id = ${id} AND purpose = 'return'`);
  const later = (changes = sql`updated_at = updated_at - interval '1 minute'`) =>
    bench.db.system.execute(sql`UPDATE node_drain_pods SET ${changes}`);

  test("is tried again after a while, and comes when it can", async () => {
    const { from, pods } = await refusedOnce();
    await afterPass(from);
    expect(await returns(from)).toHaveLength(1);
    bench.hosts.script = () => undefined;
    await later();
    await isReturned(from);
    expect(await shown(from)).toMatchObject({ counts: { returned: 1 }, pods: [{ target: from.name, blocker: null }] });
    expect(await home(pods)).toEqual([from.id]);
  });

  test("for which it was stopped several times in vain stays where it is and says why", async () => {
    const { from, to, pods } = await refusedOnce();
    await expect
      .poll(
        async () => {
          await later(sql`updated_at = updated_at - interval '1 day'`);
          return (await afterPass(from))["returnedAt"];
        },
        { timeout: 60_000, interval: 20 },
      )
      .not.toBeNull();
    expect(await shown(from)).toMatchObject({
      counts: { stayed: 1 },
      pods: [{ target: to.name, percent: 100, blocker: { code: "STORAGE_FULL" } }],
    });
    expect(await returns(from)).toHaveLength(3);
    expect(await home(pods)).toEqual([to.id]);
  });

  test("because others have taken its room is asked for longer, as nobody is stopped for that, but not for ever", async () => {
    const { nodes, pods } = await emptied(1);
    const [from, to] = nodes;
    await bench.db.system.execute(sql`UPDATE node_capacity SET cpu_reserved = cpu_total WHERE node_id = ${from.id}`);
    await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {});
    const blocked = { counts: { moved: 1 }, pods: [{ target: to.name, blocker: { code: "NO_CAPACITY" } }] };
    for (let tries = 1; tries < 10; tries++) {
      expect(await afterPass(from)).toMatchObject({ returnedAt: null, ...blocked });
      await later(sql`updated_at = updated_at - interval '1 day'`);
    }
    expect(await afterPass(from)).toMatchObject({ counts: { stayed: 1 } });
    await isReturned(from);
    expect(await home(pods)).toEqual([to.id]);
  });
});

test("a pod that somebody has moved on by hand stays there", async () => {
  const { nodes, pods } = await emptied(1);
  const [from, , third] = nodes;
  const by = { target: third.name, reason: "it is better there" };
  const { json } = await drains.call("POST", `/api/cloud-pods/admin/${pods[0]?.id ?? ""}/migrate`, by);
  await bench.end((json["task"] as { id: string }).id);
  await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {});
  await isReturned(from);
  expect(await shown(from)).toMatchObject({ counts: { gone: 1 } });
  expect(await home(pods)).toEqual([third.id]);
});

test("a pod that another drain has just found a place for comes home after that", async () => {
  const { nodes, pods } = await emptied(2);
  const [from, to, third] = nodes;
  bench.hosts.away.add(to.id);
  await drains.call("POST", `/api/nodes/${to.name}/drain`, { reason: "its turn", maxParallel: 1 });
  await drains.drive();
  expect(await shown(to)).toMatchObject({ counts: { moving: 1, claimed: 1 }, pods: [{ target: third.name }, {}] });
  await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {});
  await drains.drive();
  expect(await shown(from)).toMatchObject({ counts: { moved: 2 } });
  bench.hosts.away.clear();
  expect(await drains.driveToEnd(to)).toMatchObject({ state: "drained" });
  await isReturned(from);
  expect(await home(pods)).toEqual([from.id, from.id]);
});
