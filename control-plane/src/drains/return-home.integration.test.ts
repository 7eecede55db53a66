import { expect, test } from "vitest";
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
      { timeout: 20_000, interval: 20 },
    )
    .not.toBeNull();
}

test("a pod that could not come home says why", async () => {
  const { nodes, pods } = await emptied(1);
  const [from, to] = nodes;
  bench.hosts.script = ({ nodeId, op }) =>
    nodeId === from.id && op?.$case === "restore"
      ? { state: "failed", errorCode: "STORAGE_FULL", retryable: false }
      : undefined;
  await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {});
  await isReturned(from);
  expect(await shown(from)).toMatchObject({ counts: { left: 1 }, pods: [{ blocker: { code: "STORAGE_FULL" } }] });
  expect(await home(pods)).toEqual([to.id]);
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
