import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { FleetNode, FleetPod } from "../../../test/support/telemetry-fleet.ts";
import type { Database, Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { archiveSamples, dropArchivedPartitions } from "./archive-samples.ts";
import { closeMonths } from "./close-months.ts";
import { rollUpDirty } from "./roll-up.ts";
import { sealDays } from "./seal-days.ts";
import { verifyMetering } from "./verify-metering.ts";

const hour = new Date("2026-01-31T22:00:00Z");
const soon = new Date("2026-02-01T00:06:00Z");
const later = new Date("2026-02-04T01:06:00Z");

let db: TestDatabase;
let directory: string;
let fleet: DeliveringFleet;
let pods: FleetPod[];

beforeAll(async () => {
  db = await createTestDatabase();
  directory = await mkdtemp(join(tmpdir(), "usage-archive-"));
  fleet = await deliveringFleet(db, { nodes: 2, podsPerNode: 2, since: hour });
  pods = fleet.nodes.flatMap((node) => node.pods);
  for (const pod of pods) await allocate(db.system, pod, { from: hour });
  for (const node of fleet.nodes) await fleet.deliverHour(node as FleetNode, hour);
});
afterAll(async () => {
  await fleet.close();
  await db.close();
  await rm(directory, { recursive: true });
});

/** The database as a process sees it whose connection is killed at its n-th statement. */
function dyingAt(statement: number): { readonly db: Database; readonly isDead: () => boolean } {
  let count = 0;
  const die = async (runner: Queryable) => {
    if (++count !== statement) return;
    const [own] = await runner.query<{ pid: number }>(sql`SELECT pg_backend_pid() AS pid`);
    await db.system.query(sql`SELECT pg_terminate_backend(${own?.pid ?? 0}, 5000)`);
  };
  const dying = <Runner extends Queryable>(runner: Runner): Runner => ({
    ...runner,
    async query(asked: Sql) {
      if (count >= statement) throw new Error("dead");
      await die(runner);
      return await runner.query(asked);
    },
    async execute(asked: Sql) {
      if (count >= statement) throw new Error("dead");
      await die(runner);
      return await runner.execute(asked);
    },
  });
  const system = dying(db.system);
  return {
    db: {
      ...system,
      transaction: (work, options) => db.system.transaction((tx) => work(dying(tx)), { ...options, retriesMax: 0 }),
    },
    isDead: () => count >= statement,
  };
}

async function figures(): Promise<unknown> {
  const levels = ["cloud_pod_usage_hourly", "cloud_pod_usage_daily", "cloud_pod_usage_monthly"] as const;
  return await Promise.all(
    levels.map((table) =>
      db.system.query({
        text: `SELECT pod_id, sum(sample_count)::text AS samples, sum(guest_out_bytes)::text AS bytes, sum(uptime_ms)::text AS uptime, sum(cost_total) AS cost
          FROM ${table} GROUP BY pod_id ORDER BY pod_id`,
        values: [],
      }),
    ),
  );
}

async function work(with_: Database, now: Date): Promise<void> {
  while ((await rollUpDirty(with_, now)).hours > 0);
}

test("a roll-up that is killed at any statement is finished by the next one, and the figures are the same", async () => {
  await work(db.system, soon);
  const truth = await figures();
  let deaths = 0;
  for (let statement = 1; ; statement++) {
    await db.system.execute(
      sql`TRUNCATE cloud_pod_usage_hourly, cloud_pod_usage_daily, cloud_pod_usage_monthly, usage_hours, usage_dirty_days, usage_dirty_months`,
    );
    const dying = dyingAt(statement);
    await work(dying.db, soon).catch(() => {});
    await work(db.system, soon);
    expect(await figures(), `killed at statement ${statement}`).toEqual(truth);
    if (!dying.isDead()) break;
    deaths++;
  }
  expect(deaths).toBeGreaterThan(20);
  expect((await verifyMetering(db.system, "2026-01")).findings).toEqual([]);
}, 600_000);

test("sealing, archiving and closing that are killed at any statement end as if they had not been", async () => {
  await work(db.system, later);
  const truth = await figures();
  const archive = { databaseUrl: db.systemUrl, archiveDirectory: directory };
  const retain = async (with_: Database) => {
    await sealDays(with_, later);
    await archiveSamples(with_, archive);
    await dropArchivedPartitions(with_, archive);
    await closeMonths(with_, later);
  };
  let deaths = 0;
  for (let statement = 1; ; statement += 7) {
    const dying = dyingAt(statement);
    await retain(dying.db).catch(() => {});
    if (!dying.isDead()) break;
    deaths++;
    expect(await figures(), `killed at statement ${statement}`).toEqual(truth);
  }
  await retain(db.system);
  expect(deaths).toBeGreaterThan(3);
  expect(await figures()).toEqual(truth);
  expect((await verifyMetering(db.system, "2026-01")).findings).toEqual([]);
  const [closed] = await db.system.query(sql`SELECT year_month FROM usage_closed_months`);
  expect(closed).toEqual({ year_month: "2026-01" });
  const [left] = await db.system.query(sql`SELECT to_regclass('cloud_pod_usage_samples_20260131') AS partition`);
  expect(left).toEqual({ partition: null });
}, 600_000);
