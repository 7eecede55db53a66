import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { beforeEach, expect, test } from "vitest";
import { MoveWorkbench, type BenchNode } from "../../../test/support/move-workbench.ts";
import type { FleetEnd } from "../../../test/support/scripted-fleet.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import { readComparison } from "../reconciling/read-comparison.ts";
import { systemActor } from "../security/actor.ts";
import { clearLeftArchives } from "./left-archives.ts";
import { requestMove } from "./request-move.ts";

const bench = new MoveWorkbench();
const doors = () => ({ db: bench.db.system, log: pino({ level: "silent" }) });
beforeEach(() => {
  bench.work();
});

const broken: FleetEnd = { state: "failed", errorCode: "BROKEN", retryable: false };
const nothing = { asked: [], removed: 0, givenUp: 0 };

/** A pod that was moved by an archive that no host could delete. */
async function moved(from: BenchNode, to: BenchNode, isToFail: boolean): Promise<Pod> {
  const pod = await bench.podOn(from);
  bench.hosts.script = ({ op }) =>
    op?.$case === "deleteBackup" || (isToFail && op?.$case === "restore") ? broken : undefined;
  const who = { actor: systemActor("test"), requestId: newId() };
  const { task } = await bench.inSystem((tx) =>
    requestMove(tx, bench.fleet, who, pod, { targetNodeId: to.id, reason: "test" }),
  );
  expect((await bench.end(task.id)).state).toBe(isToFail ? "failed" : "succeeded");
  expect(bench.hosts.archives.size).toBe(1);
  return pod;
}

const pass = () => clearLeftArchives(doors());

/** Everything that the pod's moves and hosts have ended was ended that much earlier. */
async function later({ id }: Pod, minutes: number): Promise<void> {
  for (const change of [
    sql`UPDATE cloud_pod_moves SET ended_at = ended_at - ${minutes} * interval '1 minute' WHERE pod_id = ${id}`,
    sql`UPDATE node_commands SET finished_at = finished_at - ${minutes} * interval '1 minute' WHERE pod_id = ${id}`,
  ])
    await bench.db.system.execute(change);
}

async function answered({ id }: Pod): Promise<void> {
  const open = () => bench.db.system.query(sql`SELECT FROM node_commands WHERE pod_id = ${id} AND finished_at IS NULL`);
  await expect.poll(async () => (await open()).length, { timeout: 60_000, interval: 10 }).toBe(0);
}

async function isNoted({ id }: Pod): Promise<boolean> {
  const rows = await bench.db.system.query(
    sql`SELECT FROM cloud_pod_moves WHERE pod_id = ${id} AND archive_removed_at IS NOT NULL`,
  );
  return rows.length === 1;
}

test("an archive that a move could not delete is deleted later, by any host that sees it, asked one at a time", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await moved(from, to, false);
  expect(await pass()).toEqual(nothing);
  await later(pod, 11);
  bench.hosts.away.add(from.id);
  // The move itself had asked its target.
  expect(await pass()).toEqual({ ...nothing, asked: [from.id] });
  expect(await pass()).toEqual(nothing);
  // A host that falls silent is not waited for: after a pause another one is asked.
  await bench.db.system.execute(
    sql`UPDATE node_status SET session_connected = false, session_seen_at = now() - interval '11 minutes' WHERE node_id = ${from.id}`,
  );
  await bench.db.system.execute(
    sql`UPDATE node_commands SET created_at = created_at - interval '11 minutes' WHERE pod_id = ${pod.id} AND finished_at IS NULL`,
  );
  expect(await pass()).toEqual(nothing);
  await answered(pod);
  await later(pod, 3);
  bench.hosts.script = () => undefined;
  expect(await pass()).toEqual({ ...nothing, asked: [to.id] });
  await answered(pod);
  expect(bench.hosts.archives.size).toBe(0);
  expect(await pass()).toEqual({ ...nothing, removed: 1 });
  expect(await isNoted(pod)).toBe(true);
  expect(await pass()).toEqual(nothing);
});

test("that of a move that came to nothing too, unless it may be the last copy", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await moved(from, to, true);
  await later(pod, 11);
  await bench.db.system.execute(sql`UPDATE cloud_pods SET observed_at = NULL WHERE id = ${pod.id}`);
  const sourceFreed = (at: Date | null) =>
    bench.db.system.execute(sql`UPDATE cloud_pod_moves SET source_freed_at = ${at} WHERE pod_id = ${pod.id}`);
  await sourceFreed(new Date());
  expect(await pass()).toEqual(nothing);
  await sourceFreed(null);
  bench.hosts.script = () => undefined;
  expect(await pass()).toEqual({ asked: [to.id], removed: 0, givenUp: 0 });
  await answered(pod);
  expect(bench.hosts.archives.size).toBe(0);
  expect(await pass()).toEqual({ asked: [], removed: 1, givenUp: 0 });
  expect(await isNoted(pod)).toBe(true);
});

test("after a dozen tries in vain it is left to operators, who can have it tried again; a deleted pod's goes too", async () => {
  const [from, to] = twoOf(await bench.nodes(2));
  const pod = await moved(from, to, false);
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_moves SET archive_tries = 12, source_freed_at = now(), switched_at = NULL WHERE pod_id = ${pod.id}`,
  );
  await bench.db.system.execute(sql`UPDATE cloud_pods SET observed_at = NULL WHERE id = ${pod.id}`);
  await later(pod, 24 * 60);
  expect(await pass()).toEqual(nothing);
  await bench.db.system.execute(sql`UPDATE cloud_pods SET status = 'deleted', deleted_at = now() WHERE id = ${pod.id}`);
  expect(await pass()).toEqual({ ...nothing, givenUp: 1 });
  expect(await pass()).toEqual(nothing);
  const archives = async () => (await readComparisonOf(to))?.archives ?? [];
  expect(await archives()).toMatchObject([
    { podId: pod.id, madeFor: "move", errand: "delete", tries: 12, error: "BROKEN" },
  ]);
  bench.hosts.script = () => undefined;
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_moves SET archive_given_up_at = NULL, archive_tries = 0 WHERE pod_id = ${pod.id}`,
  );
  expect((await pass()).asked).toHaveLength(1);
  await answered(pod);
  expect(await pass()).toEqual({ ...nothing, removed: 1 });
  expect(bench.hosts.archives.size).toBe(0);
});

/** What the reconciler would be told about a host. */
async function readComparisonOf({ id }: BenchNode) {
  await bench.db.system.execute(
    sql`INSERT INTO node_inventories (node_id, observed_at, containers) VALUES (${id}, now(), '[]') ON CONFLICT DO NOTHING`,
  );
  return await readComparison(bench.db.system, id);
}

function twoOf(nodes: readonly BenchNode[]): [BenchNode, BenchNode] {
  const [a, b] = nodes;
  if (a === undefined || b === undefined) throw new Error("two hosts");
  return [a, b];
}
