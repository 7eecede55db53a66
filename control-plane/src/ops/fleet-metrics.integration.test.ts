import { afterAll, beforeAll, expect, test } from "vitest";
import { Registry } from "prom-client";
import { makeTenant } from "../../../test/support/people.ts";
import { insertFleet } from "../../../test/support/placement-fleet.ts";
import { makePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { Database } from "../platform/database.ts";
import { createLog } from "../platform/log.ts";
import { sql } from "../platform/sql.ts";
import { fleetMetrics } from "./fleet-metrics.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

/** What a page of metrics says, comments left out. */
async function read(database: Database): Promise<string[]> {
  const registry = new Registry();
  fleetMetrics(registry, database, createLog({ level: "silent" }));
  return (await registry.metrics()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}

test("tells of hosts, of work that waits and of samples that are late; asks the database once", async () => {
  const [late] = await insertFleet(db.system, { nodes: 3, cores: 4, memoryMb: 8_192, diskGb: 100 });
  const pod = await makePod(db, await makeTenant(db), { hostname: "waits" });
  await db.system.execute(sql`UPDATE node_status SET spool_depth = 9 WHERE node_id = ${late}`);
  await db.system.execute(
    sql`INSERT INTO node_spools (node_id, spool_id, complete_until) VALUES (${late}, gen_random_uuid(), now() - interval '15 minutes')`,
  );
  await db.system.execute(sql`
    UPDATE cloud_pod_provisioning_tasks SET state = 'queued', finished_at = NULL, created_at = now() - interval '1 hour' WHERE id = ${pod.taskId}`);
  let transactions = 0;
  const counting: Database = {
    ...db.system,
    transaction(work, how) {
      transactions += 1;
      return db.system.transaction(work, how);
    },
  };
  const lines = await read(counting);
  expect(lines).toEqual(
    expect.arrayContaining([
      'cloudpods_nodes{role="hypervisor",state="online"} 3',
      expect.stringMatching(/^cloudpods_metering_lag_seconds\{quantile="1"\} 9\d\d$/),
      "cloudpods_spool_depth_max 9",
      "cloudpods_spool_depth_total 9",
      'cloudpods_tasks_open{type="create",state="queued"} 1',
      expect.stringMatching(/^cloudpods_task_oldest_seconds\{state="queued"\} 36\d\d$/),
      "cloudpods_dirty_hours 0",
      expect.stringMatching(/^cloudpods_audit_seal_lag_seconds \d+$/),
      'cloudpods_orphan_containers{kind="misplaced"} 0',
    ]),
  );
  expect(transactions).toBe(1);
});

test("has no figures without the database, and no fault either", async () => {
  const away: Database = { ...db.system, transaction: () => Promise.reject(new Error("away")) };
  expect(await read(away)).toEqual([]);
});
