import { afterAll, beforeAll, expect, test } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { FleetNode, FleetPod } from "../../../test/support/telemetry-fleet.ts";
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
  expect(findings.every(({ podId }) => podId === pod.podId)).toBe(true);
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
    "cloud_pod_usage_hourly SET missing_ms = missing_ms - 60000",
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
