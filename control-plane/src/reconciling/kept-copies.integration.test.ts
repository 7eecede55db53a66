import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { beforeEach, expect, test } from "vitest";
import { smallInventory } from "../../../test/support/connected-agent.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { requestMove } from "../moves/request-move.ts";
import { recordInventory } from "../nodes/record-inventory.ts";
import { sql } from "../platform/sql.ts";
import { recordAddress } from "../pods/addresses.ts";
import type { Pod } from "../pods/pod.ts";
import { systemActor } from "../security/actor.ts";
import { reconcileNodes } from "./reconcile-nodes.ts";

const bench = new MoveWorkbench();
beforeEach(() => {
  bench.work();
});

/** A host tells what it has; then everything is compared. @returns what was done */
async function tell({ id: nodeId }: BenchNode) {
  const [status] = await bench.db.system.query<{ epoch: bigint }>(
    sql`SELECT session_epoch AS epoch FROM node_status WHERE node_id = ${nodeId}`,
  );
  const containers = [...(bench.hosts.containers.get(nodeId)?.values() ?? [])];
  const session = { nodeId, epoch: status?.epoch ?? 0n };
  await recordInventory(bench.db.system, session, smallInventory({ containers }), { onAddress: recordAddress });
  const log = pino({ level: "silent" });
  return await reconcileNodes({ db: bench.db.system, log, graceMs: 0, onCommand: () => undefined });
}

function findings({ id }: Pod) {
  return bench.db.system.query(
    sql`SELECT kind, state, action, resolution FROM node_findings WHERE pod_id = ${id} AND kind = 'stale-copy' ORDER BY id`,
  );
}

async function setState({ id }: BenchNode, state: string): Promise<void> {
  await bench.db.system.execute(
    sql`UPDATE node_status SET state = ${state}, session_connected = ${state === "online"} WHERE node_id = ${id}`,
  );
}

test("a copy that a move has left and that runs is stopped as soon as an inventory shows it, and kept otherwise", async () => {
  const [from, to] = await bench.nodes(2);
  if (from === undefined || to === undefined) throw new Error("two hosts");
  const pod = await bench.podOn(from);
  // The source falls silent before it has removed its copy.
  bench.hosts.script = (command) => {
    if (command.op?.$case === "restore") bench.hosts.away.add(from.id);
    return undefined;
  };
  const who = { actor: systemActor("test"), requestId: newId() };
  const { task } = await bench.inSystem((tx) =>
    requestMove(tx, bench.fleet, who, pod, { targetNodeId: to.id, reason: "test" }),
  );
  await setState(from, "offline");
  expect((await bench.end(task.id)).state).toBe("succeeded");
  await setState(from, "online");
  bench.hosts.away.clear();
  const copy = bench.hosts.at(from.id, pod.vmid);
  if (copy === undefined) throw new Error("the source has a copy");

  await tell(to);
  expect(await tell(from)).toEqual([]);
  expect(await findings(pod)).toEqual([]);
  // Somebody starts it, or Proxmox does.
  bench.hosts.put(from.id, { ...copy, power: Power.POWER_RUNNING });
  const isStopped = async (): Promise<boolean> => {
    await tell(to);
    await tell(from);
    return bench.hosts.at(from.id, pod.vmid)?.power === Power.POWER_STOPPED;
  };
  await expect.poll(isStopped, { timeout: 60_000, interval: 20 }).toBe(true);
  expect(await findings(pod)).toMatchObject([{ kind: "stale-copy", action: "stop" }]);
  const isOver = async (): Promise<unknown> => {
    await tell(from);
    return await findings(pod);
  };
  await expect
    .poll(isOver, { timeout: 60_000, interval: 20 })
    .toMatchObject([{ state: "resolved", resolution: "gone" }]);
  expect(bench.hosts.copies(pod.vmid)).toEqual({ here: expect.arrayContaining([from.id, to.id]), running: [to.id] });
  expect((await bench.books(pod.id)).claims).toHaveLength(2);
});
