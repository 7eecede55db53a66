import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Money } from "@cloudpods/shared/money";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sampleOf, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { rollUpDirty } from "../metering/roll-up.ts";
import { sql } from "../platform/sql.ts";
import { accruedThisMonth } from "./accrual.ts";
import { proportion, toMoney, toTenBillionths } from "./rules.ts";

const hour = new Date("2026-01-05T10:00:00Z");
const monthMs = 31n * 24n * 3_600_000n;
const after = (minutes: number) => new Date(hour.getTime() + minutes * 60_000);

let db: TestDatabase;
let fleet: DeliveringFleet;
let node: FleetNode;
let pod: FleetPod;

beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(async () => {
  await fleet.close();
  await db.close();
});
beforeEach(async () => {
  await fleet?.close();
  await db.system.execute(sql`TRUNCATE cloud_pod_allocations, cloud_pod_usage_hourly, usage_hours, usage_dirty_hours`);
  fleet = await deliveringFleet(db, { nodes: 1, podsPerNode: 1, since: hour });
  [node] = fleet.nodes as [FleetNode];
  [pod] = node.pods as [FleetPod];
});

async function hourly(): Promise<unknown> {
  const [row] = await db.system.query(
    sql`SELECT * FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND hour_start = ${hour}`,
  );
  return row;
}

test("only traffic under a plan that charges uses up its gigabytes, live and in the month alike", async () => {
  const [slow, charging] = [`S${pod.vmid}`, `C${pod.vmid}`];
  await db.system.execute(sql`
    INSERT INTO cloud_pod_plans (code, name, family, cores, memory_mb, disk_gb, bandwidth_gb, overage_policy)
    VALUES (${slow}, 's', 'shared', 1, 512, 5, 1, 'throttle'), (${charging}, 'c', 'shared', 1, 512, 5, 1, 'charge')`);
  await db.system.execute(sql`
    INSERT INTO cloud_pod_plan_prices (id, plan_code, currency, amount, valid)
    SELECT gen_random_uuid(), code, 'USD', 5, '[2025-01-01,)' FROM unnest(ARRAY[${slow}, ${charging}]) AS code`);
  await allocate(db.system, pod, { from: hour, to: after(60), mode: "plan", planCode: slow });
  await allocate(db.system, pod, { from: after(60), to: after(120), mode: "plan", planCode: charging });
  await fleet.deliverHour(node, hour, (p, endMs) => sampleOf(p, endMs, { guestOutBytes: 100_000_000n }));
  await fleet.deliverHour(node, after(60), (p, endMs) => sampleOf(p, endMs, { guestOutBytes: 20_000_000n }));
  await rollUpDirty(db.system, after(130));
  const [month] = await db.system.query<{ cost_total: string; overage_bytes: bigint }>(
    sql`SELECT cost_total, overage_bytes FROM cloud_pod_usage_monthly WHERE pod_id = ${pod.podId}`,
  );
  expect(month?.overage_bytes).toBe(60n * 20_000_000n - 2n ** 30n);
  const live = await accruedThisMonth(db.system, pod.tenantId, after(130));
  expect(live.total.compare(Money.of(month?.cost_total ?? "", "USD"))).toBe(0);
});

test("a pod that is never there for a whole minute pays for each of its seconds", async () => {
  const seconds = (from: number) => new Date(hour.getTime() + from * 1_000);
  for (let start = 0; start < 3_600; start += 120)
    await allocate(db.system, pod, { from: seconds(start), to: seconds(start + 59), cores: 2 });
  await fleet.deliverHour(node, hour);
  await rollUpDirty(db.system, after(66));
  const cost = (price: string, part: bigint, whole: bigint) =>
    toMoney(30n * proportion(toTenBillionths(price), part * 59_000n, whole), "USD")
      .toString()
      .padEnd(12, "0");
  expect(await hourly()).toMatchObject({
    core_ms: 30n * 59_000n * 2n,
    disk_gb_ms: 30n * 59_000n * 20n,
    cost_cpu: cost("0.01", 2n, 3_600_000n),
    cost_disk: cost("0.1", 20n, monthMs),
  });
});

test("time without a price is charged nothing and told, also inside an hour", async () => {
  const code = `G${pod.vmid}`;
  await db.system.execute(sql`
    INSERT INTO cloud_pod_plans (code, name, family, cores, memory_mb, disk_gb) VALUES (${code}, 'g', 'shared', 1, 512, 5)`);
  await db.system.execute(sql`
    INSERT INTO cloud_pod_plan_prices (id, plan_code, currency, amount, valid) VALUES (gen_random_uuid(), ${code}, 'USD', 31, tstzrange('2025-01-01', ${after(30)}))`);
  await allocate(db.system, pod, { from: hour, to: after(60), mode: "plan", planCode: code });
  await rollUpDirty(db.system, after(66));
  expect(await hourly()).toMatchObject({
    unpriced_ms: 1_800_000n,
    disk_gb_ms: 20n * 3_600_000n,
    cost_plan: toMoney(proportion(toTenBillionths("31"), 1_800_000n, monthMs), "USD")
      .toString()
      .padEnd(12, "0"),
  });
});
