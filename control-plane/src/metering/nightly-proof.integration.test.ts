import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { FleetNode, FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { sql } from "../platform/sql.ts";
import { closeMonths } from "./close-months.ts";
import { rollUpDirty } from "./roll-up.ts";
import { usageLoops } from "./usage-loops.ts";

const hour = new Date("2026-01-31T22:00:00Z");
let db: TestDatabase;
let fleet: DeliveringFleet;
let directory: string;

beforeAll(async () => {
  db = await createTestDatabase();
  directory = await mkdtemp(join(tmpdir(), "usage-archive-"));
  fleet = await deliveringFleet(db, { nodes: 1, podsPerNode: 1, since: hour });
  const [node] = fleet.nodes as [FleetNode];
  const [pod] = node.pods as [FleetPod];
  await allocate(db.system, pod, { from: hour, to: new Date("2026-01-31T23:00:00Z") });
  await fleet.deliverHour(node, hour);
  await rollUpDirty(db.system, new Date("2026-02-04T01:00:00Z"));
  expect(await closeMonths(db.system, new Date("2026-02-04T01:00:00Z"))).toHaveLength(1);
  await changedAt("2026-02-04T01:00:00Z");
});
afterEach(() => vi.useRealTimers());
afterAll(async () => {
  await fleet.close();
  await db.close();
  await rm(directory, { recursive: true });
});

/** When the month was last rolled up. */
async function changedAt(at: string): Promise<void> {
  await db.system.execute(sql`UPDATE cloud_pod_usage_monthly SET rolled_at = ${at}::timestamptz`);
}

/** One pass at an instant. @returns the months that it looked at, and what it found */
async function pass(at: string): Promise<string[]> {
  vi.useFakeTimers({ toFake: ["Date"], now: new Date(at) });
  const loops = usageLoops({
    db: db.system,
    log: pino({ level: "silent" }),
    databaseUrl: db.systemUrl,
    archiveDirectory: directory,
  });
  await loops.find(({ name }) => name === "verify-metering")?.run();
  const rows = await db.system.query<{ told: string }>(sql`
    SELECT year_month || ' ' || disagreements_count AS told FROM usage_verifications WHERE verified_at = ${new Date(at)} ORDER BY 1`);
  return rows.map(({ told }) => told);
}

test("each night proves this month, and a closed one until it was found right after its last change", async () => {
  expect(await pass("2026-02-06T02:59:00Z")).toEqual([]);
  expect(await pass("2026-02-06T03:10:00Z")).toEqual(["2026-01 0", "2026-02 0"]);
  expect(await pass("2026-02-06T04:10:00Z")).toEqual([]);
  expect(await pass("2026-02-07T03:10:00Z")).toEqual(["2026-02 0"]);
  await changedAt("2026-02-07T12:00:00Z");
  expect(await pass("2026-02-08T03:10:00Z")).toEqual(["2026-01 0", "2026-02 0"]);
  await db.system.execute(sql`UPDATE cloud_pod_usage_daily SET io_read_bytes = io_read_bytes + 1`);
  await changedAt("2026-02-08T12:00:00Z");
  expect(await pass("2026-02-09T03:10:00Z")).toEqual(["2026-01 2", "2026-02 0"]);
  // What is wrong is looked at again every night.
  expect(await pass("2026-02-10T03:10:00Z")).toEqual(["2026-01 2", "2026-02 0"]);
});
