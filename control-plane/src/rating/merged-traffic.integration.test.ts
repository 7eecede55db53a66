import { afterAll, beforeAll, expect, test } from "vitest";
import { Money } from "@cloudpods/shared/money";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sampleOf, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { rollUpDirty } from "../metering/roll-up.ts";
import { verifyMetering } from "../metering/verify-metering.ts";
import { sql } from "../platform/sql.ts";
import { accruedThisMonth } from "./accrual.ts";
import { proportion, toMoney, toTenBillionths } from "./rules.ts";

const hour = new Date("2026-01-05T10:00:00Z");
const after = (minutes: number) => new Date(hour.getTime() + minutes * 60_000);
const repricedAt = new Date(hour.getTime() + 20 * 60_000 + 34_567);

let db: TestDatabase;
let fleet: DeliveringFleet;
let node: FleetNode;
let merged: FleetPod;
let single: FleetPod;

/** Two pods send the same; a full spool has merged the minutes of one of them. */
beforeAll(async () => {
  db = await createTestDatabase();
  fleet = await deliveringFleet(db, { nodes: 1, podsPerNode: 2, since: hour });
  [node] = fleet.nodes as [FleetNode];
  [merged, single] = node.pods as [FleetPod, FleetPod];
  await db.system.execute(sql`
    INSERT INTO cloud_pod_pricing (name, currency, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month, network_out_gb, effective_from, effective_until)
    VALUES ('deal', 'USD', 0.02, 0, 0, 0.11, '2025-06-01', ${repricedAt}), ('deal', 'USD', 0.03, 0, 0, 0.13, ${repricedAt}, NULL)`);
  await db.system.execute(
    sql`UPDATE tenant_pricing_names SET pricing_name = 'deal' WHERE tenant_id = ${merged.tenantId}`,
  );
  for (const pod of node.pods) await allocate(db.system, pod, { from: after(-60), to: after(60) });
  for (const [from, to] of [
    [0, 15],
    [15, 40],
    [40, 60],
  ] as const) {
    const minutes = Array.from({ length: to - from }, (_, index) => from + index + 1);
    const ofMinute = minutes.map((minute) => sampleOf(single, after(minute).getTime(), { guestOutBytes: 1_000_003n }));
    const length = BigInt(to - from);
    const ofAll = sampleOf(merged, after(to).getTime(), {
      startMs: BigInt(after(from).getTime()),
      runningMs: 60_000n * length,
      sampleCount: to - from,
      guestOutBytes: 1_000_003n * length,
    });
    await fleet.deliver(node, after(to).getTime(), { samples: [ofAll, ...ofMinute] });
  }
});
afterAll(async () => {
  await fleet.close();
  await db.close();
});

interface Rated {
  readonly cpu: string;
  readonly out: string;
  readonly bytes: bigint;
}

async function rated(pod: FleetPod): Promise<Rated> {
  const [row] = await db.system.query<Rated>(sql`
    SELECT cost_cpu AS cpu, cost_network_out AS out, billable_out_bytes AS bytes FROM cloud_pod_usage_hourly
    WHERE pod_id = ${pod.podId} AND hour_start = ${hour}`);
  return row ?? expect.fail("no row of the hour");
}

/** What so many minutes' traffic costs before and after the change of prices. */
function priceOf(minutesBefore: bigint, minutesAfter: bigint): string {
  const cost = (price: string, minutes: bigint) => proportion(toTenBillionths(price), 1_000_003n * minutes, 2n ** 30n);
  return toMoney(cost("0.11", minutesBefore) + cost("0.13", minutesAfter), "USD").toString();
}

test("merged minutes keep their time to the millisecond, and their traffic goes whole to the price in force at their end", async () => {
  const live = await accruedThisMonth(db.system, merged.tenantId, after(60));
  await rollUpDirty(db.system, after(66));
  const [one, minutes] = [await rated(merged), await rated(single)];
  // Minutes 16 to 40 are one sample, which ends after the change; minute 21 is the first that does.
  expect(Money.of(one.out, "USD").toString()).toBe(priceOf(15n, 45n));
  expect(Money.of(minutes.out, "USD").toString()).toBe(priceOf(20n, 40n));
  expect([one.bytes, minutes.bytes]).toEqual([60_000_180n, 60_000_180n]);
  expect(one.cpu).toBe(minutes.cpu);
  expect((await accruedThisMonth(db.system, merged.tenantId, after(60))).total.compare(live.total)).toBe(0);
});

test("made again, by whatever way, it is the same", async () => {
  const before = [await rated(merged), await rated(single)];
  await db.system.execute(
    sql`INSERT INTO usage_dirty_hours (hour_start, pod_id) VALUES (${hour}, ${merged.podId}), (${hour}, ${single.podId})`,
  );
  await rollUpDirty(db.system, after(67));
  expect([await rated(merged), await rated(single)]).toEqual(before);
  expect((await verifyMetering(db.system, "2026-01")).findings).toEqual([]);
});
