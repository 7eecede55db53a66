import { newId } from "@cloudpods/shared/ids";
import { afterAll, beforeAll, expect, test } from "vitest";
import { makePod } from "../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";
import { aTenant, anOnlineNode } from "../../test/support/rows.ts";
import { sql } from "./platform/sql.ts";
import { pruneHistory } from "./prune-history.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

const idsOf = async (table: string): Promise<unknown[]> =>
  (await db.system.query<{ id: unknown }>({ text: `SELECT id FROM ${table} ORDER BY id`, values: [] })).map(
    (row) => row.id,
  );
const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000);

test("what has ended long enough ago goes, and nothing else", async () => {
  const tenant = await aTenant(db.system);
  const node = await anOnlineNode(db.system);
  const [old, recent, open] = await Promise.all(
    ["old", "recent", "open"].map((hostname) => makePod(db, tenant.id, { hostname })),
  );
  if (old === undefined || recent === undefined || open === undefined) throw new Error("no pods");
  const taskEnded = (taskId: string, at: Date | null) =>
    db.system.execute(sql`UPDATE cloud_pod_provisioning_tasks SET finished_at = ${at} WHERE id = ${taskId}`);
  await taskEnded(old.taskId, daysAgo(91));
  await taskEnded(recent.taskId, daysAgo(29));
  await taskEnded(open.taskId, null);

  const kept = { node_commands: [] as string[], node_events: [] as string[], placement_failures: [] as string[] };
  const add = async (table: keyof typeof kept, keep: boolean, insert: (id: string) => ReturnType<typeof sql>) => {
    const id = newId();
    await db.system.execute(insert(id));
    if (keep) kept[table].push(id);
  };
  const command = (taskId: string | null, endedAt: Date | null) => (id: string) =>
    sql`
    INSERT INTO node_commands (id, node_id, task_id, op, command, fleet_epoch, generation, revision, finished_at)
    VALUES (${id}, ${node.id}, ${taskId}, 'ensure_power', '{}', 1, 1, 1, ${endedAt})`;
  await add("node_commands", false, command(old.taskId, daysAgo(91)));
  await add("node_commands", false, command(null, daysAgo(31)));
  await add("node_commands", true, command(recent.taskId, daysAgo(31)));
  await add("node_commands", true, command(open.taskId, daysAgo(31)));
  await add("node_commands", true, command(null, daysAgo(29)));
  await add("node_commands", true, command(null, null));
  for (const days of [89, 91]) {
    await add(
      "node_events",
      days < 90,
      (id) => sql`
      INSERT INTO node_events (id, node_id, at, kind, message) VALUES (${id}, ${node.id}, ${daysAgo(days)}, 'TEST', '')`,
    );
  }
  for (const days of [29, 31]) {
    await add(
      "placement_failures",
      days < 30,
      (id) => sql`
      INSERT INTO placement_failures (id, tenant_id, at, request, verdicts, summary) VALUES (${id}, ${tenant.id}, ${daysAgo(days)}, '{}', '{}', '')`,
    );
  }
  for (const { taskId } of [old, open]) {
    await db.system.execute(sql`
      INSERT INTO cloud_pod_task_events (task_id, seq, tenant_id, at, state, step, percent, message)
      VALUES (${taskId}, 1, ${tenant.id}, ${daysAgo(91)}, 'running', 'x', 0, '')`);
  }
  for (const days of [13, 15]) {
    await db.system.execute(sql`
      INSERT INTO node_samples VALUES (${node.id}, ${daysAgo(days)}, 1, 1, 1, 1)`);
  }

  await pruneHistory(db.system);
  for (const [table, ids] of Object.entries(kept)) expect(await idsOf(table), table).toEqual(ids.toSorted());
  expect(await db.system.query(sql`SELECT task_id AS id FROM cloud_pod_task_events`)).toEqual([{ id: open.taskId }]);
  expect(await db.system.query(sql`SELECT FROM node_samples`)).toHaveLength(1);
});
