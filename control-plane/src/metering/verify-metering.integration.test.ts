import { afterAll, beforeAll, expect, test } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { FleetNode, FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { sql } from "../platform/sql.ts";
import { rollUpDay } from "./roll-up-days.ts";
import { rollUpMonth } from "./roll-up-months.ts";
import { rollUpDirty } from "./roll-up.ts";
import { verifyMetering } from "./verify-metering.ts";

const hour = new Date("2026-01-05T10:00:00Z");
const later = new Date("2026-01-05T13:06:00Z");

let db: TestDatabase;
let fleet: DeliveringFleet;
let pod: FleetPod;

beforeAll(async () => {
  db = await createTestDatabase();
  fleet = await deliveringFleet(db, { nodes: 1, podsPerNode: 2, since: hour });
  const [node] = fleet.nodes as [FleetNode];
  [pod] = node.pods as [FleetPod];
  for (const each of node.pods) await allocate(db.system, each, { from: hour, to: later });
  await fleet.deliverHour(node, hour);
  await rollUpDirty(db.system, later);
});
afterAll(async () => {
  await fleet.close();
  await db.close();
});

async function checks(): Promise<string[]> {
  const { findings } = await verifyMetering(db.system, "2026-01");
  expect(findings.filter(({ podId }) => podId !== pod.podId)).toEqual([]);
  return findings.map(({ check, figure }) => `${check} ${figure}`).toSorted();
}

test("finds nothing where everything adds up, and says what it looked at", async () => {
  expect(await verifyMetering(db.system, "2026-01")).toEqual({
    month: "2026-01",
    findings: [],
    checked: { hours: 6, days: 2, months: 2 },
  });
});

test.each([
  [
    "a byte in the hour",
    "cloud_pod_usage_hourly SET guest_in_bytes = guest_in_bytes + 1",
    ["hours-days guest_in_bytes", "rates-hours billable_in_bytes", "samples-hours guest_in_bytes"],
  ],
  [
    "the last place of a cost",
    "cloud_pod_usage_hourly SET cost_disk = cost_disk + 0.0000000001",
    ["hours-days cost_disk", "rates-hours cost_disk"],
  ],
  [
    "a minute that nobody accounts for",
    "cloud_pod_usage_hourly SET missing_ms = missing_ms + 60000",
    ["existence-hours existence_ms", "hours-days missing_ms"],
  ],
  [
    "a day",
    "cloud_pod_usage_daily SET io_read_bytes = io_read_bytes - 1",
    ["days-months io_read_bytes", "hours-days io_read_bytes"],
  ],
  ["a month", "cloud_pod_usage_monthly SET cost_cpu = cost_cpu + 0.0000000001", ["days-months cost_cpu"]],
  ["an overage", "cloud_pod_usage_monthly SET cost_overage = 1", ["overage-months cost_overage"]],
  [
    "a sample that was never taken in",
    "cloud_pod_usage_samples SET guest_out_bytes = guest_out_bytes + 1",
    ["samples-hours guest_out_bytes"],
  ],
])("names the row where %s is wrong", async (_what, change, expected) => {
  const column = /SET (\w+)/.exec(change)?.[1] ?? "";
  const table = change.split(" ")[0] ?? "";
  const where = table.endsWith("hourly")
    ? "hour_start = '2026-01-05 10:00Z' AND "
    : table.endsWith("samples")
      ? "sample_time = '2026-01-05 10:30Z' AND "
      : "";
  const read = { text: `SELECT ${column}::text AS value FROM ${table} WHERE ${where}pod_id = $1`, values: [pod.podId] };
  const [before] = await db.system.query<{ value: string }>(read);
  await db.system.execute({ text: `UPDATE ${change} WHERE ${where}pod_id = $1`, values: [pod.podId] });
  try {
    expect(await checks()).toEqual(expected);
  } finally {
    await db.system.execute({
      text: `UPDATE ${table} SET ${column} = $2 WHERE ${where}pod_id = $1`,
      values: [pod.podId, before?.value],
    });
  }
  expect(await checks()).toEqual([]);
});

test("names hours that were never made, and rows that are missing", async () => {
  const next = new Date(hour.getTime() + 3_600_000);
  await db.system.execute(sql`DELETE FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND hour_start = ${next}`);
  const [day, month] = [new Date("2026-01-05T00:00:00Z"), new Date("2026-01-01T00:00:00Z")];
  const above = async () => {
    await db.system.execute(sql`INSERT INTO usage_dirty_days (date) VALUES ('2026-01-05')`);
    await rollUpDay(db.system, day);
    await rollUpMonth(db.system, month, later);
  };
  await above();
  expect(await checks()).toEqual(expect.arrayContaining(["existence-hours existence_ms"]));
  await db.system.execute(sql`DELETE FROM usage_hours WHERE hour_start = ${next}`);
  const { findings } = await verifyMetering(db.system, "2026-01");
  expect(findings).toEqual(expect.arrayContaining([expect.objectContaining({ check: "hours-made" })]));
  // The next pass makes such an hour.
  await rollUpDirty(db.system, later);
  expect(await checks()).toEqual([]);
});

test("names an hour in which the time that a pod ran is wrong, however well it agrees with the rest", async () => {
  await db.system.execute(sql`
    UPDATE cloud_pod_usage_hourly SET covered = '{[0,1800000)}', timely = '{[0,1800000)}', uptime_ms = 1800000, measured_ms = 1800000, not_running_ms = 1800000,
      core_ms = core_ms / 2, memory_mb_ms = memory_mb_ms / 2, cost_cpu = cost_cpu / 2, cost_memory = cost_memory / 2
    WHERE pod_id = ${pod.podId} AND hour_start = ${hour}`);
  await db.system.execute(sql`INSERT INTO usage_dirty_days (date) VALUES ('2026-01-05')`);
  await rollUpDay(db.system, new Date("2026-01-05T00:00:00Z"));
  await rollUpMonth(db.system, new Date("2026-01-01T00:00:00Z"), later);
  expect(await checks()).toEqual(["samples-hours uptime_ms"]);
});
