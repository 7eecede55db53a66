import { pino } from "pino";
import { expect, test } from "vitest";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { backUp, vanish } from "../../../test/support/lost-hosts.ts";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import { clearLeftArchives } from "../moves/left-archives.ts";
import { clearLeftCopies } from "../moves/left-copies.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";

const bench = new MoveWorkbench();
const doors = () => ({ db: bench.db.system, log: pino({ level: "silent" }) });
const drains = drainsOf(bench);

/** Waits for the command of a host that does not answer, and lets the host have begun it. */
async function hasBegun(node: BenchNode, op: string): Promise<string> {
  const open = sql`
    UPDATE node_commands SET state = 'running' WHERE node_id = ${node.id} AND op = ${op} AND state = 'pending' RETURNING id`;
  let id: string | undefined;
  await expect
    .poll(
      async () => {
        await drains.drive();
        return (id = (await bench.db.system.query<{ id: string }>(open))[0]?.id);
      },
      { timeout: 60_000, interval: 20 },
    )
    .toBeDefined();
  return id ?? "";
}

/** The host had begun the command, and the word that it shall end comes too late. */
async function endsAnyway(node: BenchNode, commandId: string): Promise<void> {
  await bench.db.system.execute(sql`UPDATE node_commands SET state = 'pending' WHERE id = ${commandId}`);
  bench.hosts.away.delete(node.id);
}

async function expectNothingLeft(
  pod: Pod,
  besides = { claims: [] as string[], copies: [] as string[], archives: 0 },
): Promise<void> {
  await expect
    .poll(
      async () => {
        await clearLeftCopies(doors(), 0);
        await clearLeftArchives(doors(), 0);
        const { claims, stays } = await bench.books(pod.id);
        const moves = await bench.db.system.query(
          sql`SELECT state, error_code AS code, ended_at IS NOT NULL AS ended FROM cloud_pod_moves WHERE pod_id = ${pod.id}`,
        );
        const left = {
          claims: claims.map(({ nodeId }) => nodeId),
          open: stays.filter(({ open }) => open),
          copies: bench.hosts.copies(pod.vmid).here,
        };
        return { ...left, archives: bench.hosts.archives.size, moves };
      },
      { timeout: 60_000, interval: 20 },
    )
    .toEqual({
      ...besides,
      open: [],
      moves: [{ state: "undone", code: "POD_DESTROYED", ended: true }],
    });
}

test.each(["backup", "restore"])(
  "a drain whose pod its customer destroys in the middle of the %s ends, and nothing of the pod is left",
  async (op) => {
    const [from, to] = two(await bench.nodes(2));
    const pod = await bench.podOn(from);
    const at = op === "backup" ? from : to;
    bench.hosts.script = (command) => {
      if (command.op?.$case === "verifyBackup") bench.hosts.away.add(to.id);
      return undefined;
    };
    if (op === "backup") bench.hosts.away.add(from.id);
    await drains.call("POST", `/api/nodes/${from.name}/drain`, { reason: "memory is replaced" });
    const begun = await hasBegun(at, op);
    await bench.destroy(pod);
    await endsAnyway(at, begun);
    expect(await drains.driveToEnd(from)).toMatchObject({ state: "drained", counts: { gone: 1 } });
    expect((await bench.podNow(pod.id)).status).toBe("deleted");
    await expectNothingLeft(pod);
    expect((await drains.call("POST", `/api/nodes/${from.name}/uncordon`, {})).status).toBe(200);
    expect((await drains.call("DELETE", `/api/nodes/${to.name}`)).status).toBe(200);
  },
);

test("an evacuation whose pod its customer destroys while it is restored ends, and nothing of the attempt is left", async () => {
  const [dead, to] = two(await bench.nodes(2));
  const pod = await bench.podOn(dead);
  await backUp(bench, pod, dead, 600);
  bench.hosts.away.add(to.id);
  await vanish(bench, dead);
  await drains.call("POST", `/api/nodes/${dead.name}/evacuate`, { reason: "the host burnt", confirmFenced: true });
  const read = await hasBegun(to, "verify_backup");
  await endsAnyway(to, read);
  bench.hosts.script = () => {
    bench.hosts.away.add(to.id);
    return undefined;
  };
  const begun = await hasBegun(to, "restore");
  await bench.destroy(pod);
  bench.hosts.script = () => undefined;
  await endsAnyway(to, begun);
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { gone: 1 } });
  expect((await bench.podNow(pod.id)).status).toBe("deleted");
  // The customer's backup is his, and what is on the dead host nobody can clear, so that it holds its room there.
  await expectNothingLeft(pod, { claims: [dead.id], copies: [dead.id], archives: 1 });
});

function two(nodes: readonly BenchNode[]): [BenchNode, BenchNode] {
  const [a = noHost(), b = noHost()] = nodes;
  return [a, b];
}

function noHost(): never {
  throw new Error("no host");
}
