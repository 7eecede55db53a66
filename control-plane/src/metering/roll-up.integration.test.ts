import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sampleOf, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { sql } from "../platform/sql.ts";
import { rollUpDirty } from "./roll-up.ts";

const hour = new Date("2026-01-05T10:00:00Z");
const after = (minutes: number) => new Date(hour.getTime() + minutes * 60_000);

let db: TestDatabase;
let fleet: DeliveringFleet;
let node: FleetNode;
let pod: FleetPod;

beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(async () => {
  await db.close();
});
beforeEach(async () => {
  await fleet?.close();
  fleet = await deliveringFleet(db, { nodes: 2, podsPerNode: 2, since: hour });
  [node] = fleet.nodes as [FleetNode];
  [pod] = node.pods as [FleetPod];
});

async function hourly(podId: string, start = hour): Promise<Record<string, unknown> | undefined> {
  const [row] = await db.system.query(
    sql`SELECT * FROM cloud_pod_usage_hourly WHERE pod_id = ${podId} AND hour_start = ${start}`,
  );
  return row;
}

test("an hour of samples becomes figures and cost, and its day and month with it", async () => {
  await allocate(db.system, pod, { from: after(-600) });
  await fleet.deliverHour(node, hour, (p, endMs) =>
    sampleOf(p, endMs, { guestOutBytes: 2n ** 30n / 60n, cpuUsageUs: 60_000_000n }),
  );
  console.log(await rollUpDirty(db.system, after(66)));
  expect(await hourly(pod.podId)).toMatchObject({ sample_count: 60n, uptime_ms: 3_600_000n, measured_ms: 3_600_000n });
  console.log(await hourly(pod.podId));
  console.log(await db.system.query(sql`SELECT * FROM cloud_pod_usage_daily WHERE pod_id = ${pod.podId}`));
  console.log(await db.system.query(sql`SELECT * FROM cloud_pod_usage_monthly WHERE pod_id = ${pod.podId}`));
});
