import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Money } from "@cloudpods/shared/money";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sampleOf, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { sql } from "../platform/sql.ts";
import { accruedThisMonth } from "../rating/accrual.ts";
import { accrueByTime, proportion, toMoney, toTenBillionths } from "../rating/rules.ts";
import { rollUpDirty } from "./roll-up.ts";
import { rollUpHour } from "./roll-up-hours.ts";

const hour = new Date("2026-01-05T10:00:00Z");
const hourMs = 3_600_000;
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
  await db.system.execute(sql`
    TRUNCATE cloud_pod_allocations, cloud_pod_usage_hourly, cloud_pod_usage_daily, cloud_pod_usage_monthly, usage_hours,
      usage_dirty_hours, usage_dirty_days, usage_dirty_months, node_outages`);
  fleet = await deliveringFleet(db, { nodes: 2, podsPerNode: 2, since: hour });
  [node] = fleet.nodes as [FleetNode];
  [pod] = node.pods as [FleetPod];
});

interface Figures {
  readonly [column: string]: unknown;
  readonly cost_total: string;
}

async function hourly(podId: string, start = hour): Promise<Figures> {
  const [row] = await db.system.query<Figures>(
    sql`SELECT * FROM cloud_pod_usage_hourly WHERE pod_id = ${podId} AND hour_start = ${start}`,
  );
  if (row === undefined) return expect.fail("no row of the hour");
  const { rolled_at: _, ...figures } = row;
  return figures;
}

/** What each level says that a pod sent and cost. */
async function levels(podId: string): Promise<Record<string, { bytes: bigint; cost: string }>> {
  const rows = await db.system.query<{ level: string; bytes: bigint; cost: string }>(sql`
    SELECT 'hours' AS level, sum(guest_out_bytes)::bigint AS bytes, sum(cost_total) AS cost FROM cloud_pod_usage_hourly WHERE pod_id = ${podId}
    UNION ALL SELECT 'days', sum(guest_out_bytes)::bigint, sum(cost_total) FROM cloud_pod_usage_daily WHERE pod_id = ${podId}
    UNION ALL SELECT 'months', sum(guest_out_bytes)::bigint, sum(cost_total) FROM cloud_pod_usage_monthly WHERE pod_id = ${podId}`);
  return Object.fromEntries(rows.map(({ level, bytes, cost }) => [level, { bytes, cost }]));
}

describe("an hour", () => {
  test("of samples becomes figures and cost, by the same rules as the pure ones", async () => {
    await allocate(db.system, pod, { from: after(-90) });
    await fleet.deliverHour(node, hour, (p, endMs) =>
      sampleOf(p, endMs, { guestOutBytes: 123_456_789n, cpuUsageUs: 60_000_000n }),
    );
    await rollUpDirty(db.system, after(66));
    const anchorMs = BigInt(after(-90).getTime() - Date.UTC(2026, 0));
    const fromMs = BigInt(hour.getTime() - Date.UTC(2026, 0));
    const cost =
      toTenBillionths("0.02") +
      toTenBillionths("0.005") +
      accrueByTime(toTenBillionths("0.1"), 20n, { anchorMs, fromMs, toMs: fromMs + 3_600_000n }, monthMs) +
      proportion(toTenBillionths("0.05"), 60n * 123_456_789n, 2n ** 30n);
    const row = await hourly(pod.podId);
    expect(row).toMatchObject({
      sample_count: 60n,
      uptime_ms: 3_600_000n,
      covered: "{[0,3600000)}",
      measured_ms: 3_600_000n,
      missing_ms: 0n,
      cpu_usage_us: 3_600_000_000n,
      cpu_capacity_ms: 7_200_000n,
      guest_out_bytes: 60n * 123_456_789n,
      core_ms: 7_200_000n,
      final_at: after(66),
    });
    expect(Money.of(row.cost_total, "USD").compare(toMoney(cost, "USD"))).toBe(0);
    const [daily] = await db.system.query(
      sql`SELECT histogram_p95(cpu_histogram) AS p95 FROM cloud_pod_usage_daily WHERE pod_id = ${pod.podId}`,
    );
    expect(daily).toEqual({ p95: 50 });
  });

  test("without samples has its row: disk accrues, and nobody says what the time was", async () => {
    await allocate(db.system, pod, { from: after(-30), to: after(90) });
    await rollUpDirty(db.system, after(130));
    expect(await hourly(pod.podId)).toMatchObject({
      sample_count: 0n,
      uptime_ms: 0n,
      missing_ms: 3_600_000n,
      disk_gb_ms: 72_000_000n,
      cost_cpu: "0.0000000000",
    });
    expect(await hourly(pod.podId, after(60))).toMatchObject({ missing_ms: 1_800_000n, disk_gb_ms: 36_000_000n });
  });

  test("tells stopped, missing and unreadable time apart", async () => {
    await allocate(db.system, pod, { from: hour, to: after(60) });
    for (let minute = 1; minute <= 50; minute++) {
      const end = after(minute).getTime();
      const samples = minute <= 20 ? [sampleOf(pod, end)] : [];
      // From minute 31 on the host could not read it; the last ten minutes nothing came.
      await fleet.deliver(node, end, { samples, unreadableVmids: minute > 30 ? [pod.vmid] : [] });
    }
    await rollUpDirty(db.system, after(66));
    expect(await hourly(pod.podId)).toMatchObject({
      measured_ms: 20n * 60_000n,
      not_running_ms: 10n * 60_000n,
      missing_ms: 30n * 60_000n,
      late_ms: 0n,
      final_at: null,
    });
    // What the last report says about an absent pod counts when the hour is final, though it marks nothing.
    for (let minute = 51; minute <= 60; minute++) await fleet.deliver(node, after(minute).getTime(), { samples: [] });
    await rollUpDirty(db.system, after(70));
    expect(await hourly(pod.podId)).toMatchObject({
      not_running_ms: 20n * 60_000n,
      missing_ms: 20n * 60_000n,
      final_at: after(70),
    });
  });

  test("is split where a pod is resized and where its price changes, to the millisecond", async () => {
    const resizedAt = new Date(hour.getTime() + 1_234_567);
    const repricedAt = new Date(hour.getTime() + 2_345_678);
    const name = `list-${pod.tenantId}`;
    await db.system.execute(sql`
      INSERT INTO cloud_pod_pricing (name, currency, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month, network_out_gb, effective_from, effective_until)
      VALUES (${name}, 'USD', 0.02, 0.007, 0.3, 0.11, '2025-06-01', ${repricedAt}), (${name}, 'USD', 0.03, 0.009, 0.4, 0.13, ${repricedAt}, NULL)`);
    await db.system.execute(
      sql`UPDATE tenant_pricing_names SET pricing_name = ${name} WHERE tenant_id = ${pod.tenantId}`,
    );
    await allocate(db.system, pod, { from: after(-60), to: resizedAt, cores: 2, memoryMb: 1024, diskGb: 20 });
    await allocate(db.system, pod, { from: resizedAt, cores: 4, memoryMb: 3072, diskGb: 30 });
    await fleet.deliverHour(node, hour, (p, endMs) => sampleOf(p, endMs, { guestOutBytes: 1_000_003n }));
    await rollUpDirty(db.system, after(66));
    const start = BigInt(hour.getTime() - Date.UTC(2026, 0));
    const [a, b, end] = [start + 1_234_567n, start + 2_345_678n, start + 3_600_000n];
    const pieces = [
      {
        price: ["0.02", "0.007", "0.3", "0.11"],
        cores: 2n,
        mb: 1024n,
        gb: 20n,
        anchor: start - 3_600_000n,
        from: start,
        to: a,
        minutes: 20n,
      },
      {
        price: ["0.02", "0.007", "0.3", "0.11"],
        cores: 4n,
        mb: 3072n,
        gb: 30n,
        anchor: a,
        from: a,
        to: b,
        minutes: 19n,
      },
      {
        price: ["0.03", "0.009", "0.4", "0.13"],
        cores: 4n,
        mb: 3072n,
        gb: 30n,
        anchor: b,
        from: b,
        to: end,
        minutes: 21n,
      },
    ];
    let expected = 0n;
    for (const { price, cores, mb, gb, anchor, from, to, minutes } of pieces) {
      const [cpu = 0n, memory = 0n, disk = 0n, out = 0n] = price.map(toTenBillionths);
      expected +=
        proportion(cpu, cores * (to - from), 3_600_000n) +
        proportion(memory, mb * (to - from), 1024n * 3_600_000n) +
        accrueByTime(disk, gb, { anchorMs: anchor, fromMs: from, toMs: to }, monthMs) +
        proportion(out, minutes * 1_000_003n, 2n ** 30n);
    }
    const row = await hourly(pod.podId);
    expect(Money.of(row.cost_total, "USD").toString()).toBe(toMoney(expected, "USD").toString());
  });

  test("of a pod that moves inside a minute has the sum of both hosts and the union of their time", async () => {
    const [, other] = fleet.nodes as [FleetNode, FleetNode];
    const movedAt = new Date(after(30).getTime() + 20_000);
    await db.system.execute(sql`UPDATE cloud_pod_placements SET placed_to = ${movedAt} WHERE pod_id = ${pod.podId}`);
    await db.system.execute(sql`
      INSERT INTO cloud_pod_placements (id, tenant_id, pod_id, node_id, vmid, generation, placed_from)
      SELECT gen_random_uuid(), tenant_id, pod_id, ${other.nodeId}, vmid, 2, ${movedAt} FROM cloud_pod_placements WHERE pod_id = ${pod.podId}`);
    await allocate(db.system, pod, { from: after(-60) });
    for (let minute = 1; minute <= 60; minute++) {
      const end = after(minute).getTime();
      const part = (fromMs: number, toMs: number) =>
        sampleOf(pod, toMs, { startMs: BigInt(fromMs), runningMs: BigInt(toMs - fromMs), guestOutBytes: 7n });
      if (minute < 31) await fleet.deliver(node, end, { samples: [part(end - 60_000, end)] });
      // The clocks of the two hosts differ: half a second is measured by both.
      if (minute === 31)
        await fleet.deliver(node, movedAt.getTime() + 250, { samples: [part(end - 60_000, movedAt.getTime() + 250)] });
      if (minute === 31) await fleet.deliver(other, end, { samples: [part(movedAt.getTime() - 250, end)] });
      if (minute > 31) await fleet.deliver(other, end, { samples: [part(end - 60_000, end)] });
    }
    await rollUpDirty(db.system, after(66));
    expect(await hourly(pod.podId)).toMatchObject({
      sample_count: 61n,
      uptime_ms: 3_600_000n,
      guest_out_bytes: 61n * 7n,
      missing_ms: 0n,
    });
  });

  test("whose host cannot be reached for more than an hour accrues no disk from then on", async () => {
    await allocate(db.system, pod, { from: after(-600) });
    await db.system.execute(sql`
      INSERT INTO node_outages (node_id, period) VALUES (${node.nodeId}, tstzrange(${after(-45)}, ${after(40)}))`);
    await rollUpDirty(db.system, after(66));
    // Gone since 09:15, lost from 10:15 to 10:40.
    expect(await hourly(pod.podId)).toMatchObject({ disk_gb_ms: 20n * 35n * 60_000n });
  });
});

describe("repairs", () => {
  test("a batch that comes after the roll-up repairs hour, day and month", async () => {
    await allocate(db.system, pod, { from: after(-60) });
    await fleet.deliverHour(node, hour);
    await rollUpDirty(db.system, after(66));
    const before = await levels(pod.podId);
    const twin = sampleOf(pod, after(60).getTime() + 1, {
      startMs: BigInt(after(60).getTime()),
      runningMs: 1n,
      guestOutBytes: 5_000n,
    });
    const [, other] = fleet.nodes as [FleetNode, FleetNode];
    await db.system.execute(sql`UPDATE cloud_pod_placements SET node_id = ${other.nodeId} WHERE pod_id = ${pod.podId}`);
    await fleet.deliver(other, after(30).getTime(), {
      samples: [
        { ...twin, endMs: BigInt(after(30).getTime()), startMs: BigInt(after(29).getTime()), runningMs: 60_000n },
      ],
      nowMs: after(90).getTime(),
    });
    await rollUpDirty(db.system, after(91));
    const repaired = await levels(pod.podId);
    expect(repaired["hours"]?.bytes).toBe((before["hours"]?.bytes ?? 0n) + 5_000n);
    expect(repaired["days"]).toEqual(repaired["hours"]);
    expect(repaired["months"]).toEqual(repaired["hours"]);
    // The minute was measured before: its time does not count twice.
    expect(await hourly(pod.podId)).toMatchObject({ uptime_ms: 3_600_000n });
  });

  test("two roll-ups at once, and again, give the same figures", async () => {
    await allocate(db.system, pod, { from: after(-60) });
    await fleet.deliverHour(node, hour);
    await Promise.all([1, 2, 3, 4].map(() => rollUpDirty(db.system, after(66))));
    const once = await hourly(pod.podId);
    await db.system.execute(sql`INSERT INTO usage_dirty_hours (hour_start, node_id) VALUES (${hour}, ${node.nodeId})`);
    await Promise.all([1, 2, 3, 4].map(() => rollUpDirty(db.system, after(66))));
    expect(await hourly(pod.podId)).toEqual(once);
    const { hours, days, months } = await levels(pod.podId);
    expect(days).toEqual(hours);
    expect(months).toEqual(hours);
  });

  test("a mark that commits while its hour is made stays for the next run", async () => {
    await allocate(db.system, pod, { from: after(-60) });
    await fleet.deliver(node, after(1).getTime());
    const lateSample = db.system.transaction(async (tx) => {
      await tx.execute(sql`
        INSERT INTO cloud_pod_usage_samples SELECT pod_id, ${after(2)}, spool_no, seq + 1, ${after(1)}, running_ms, cpu_usage_us, cpu_max_basis_points,
          memory_byte_ms, memory_max_bytes, disk_byte_ms, disk_max_bytes, guest_in_bytes, 77, io_read_bytes, io_write_bytes, sample_count, cores,
          memory_mb, disk_gb, incarnation FROM cloud_pod_usage_samples WHERE pod_id = ${pod.podId} AND sample_time = ${after(1)}`);
      await tx.execute(sql`INSERT INTO usage_dirty_hours (hour_start, node_id) VALUES (${hour}, ${node.nodeId})`);
      await rollUpHour(db.system, hour, after(66));
      return await hourly(pod.podId);
    });
    expect(await lateSample).toMatchObject({ sample_count: 1n });
    await rollUpDirty(db.system, after(66));
    expect(await hourly(pod.podId)).toMatchObject({ sample_count: 2n });
  });

  test("without the mark of its own transaction such a sample would be lost", async () => {
    await allocate(db.system, pod, { from: after(-60) });
    await fleet.deliver(node, after(1).getTime());
    await db.system.transaction(async (tx) => {
      await tx.execute(sql`
        INSERT INTO cloud_pod_usage_samples SELECT pod_id, ${after(2)}, spool_no, seq + 1, ${after(1)}, running_ms, cpu_usage_us, cpu_max_basis_points,
          memory_byte_ms, memory_max_bytes, disk_byte_ms, disk_max_bytes, guest_in_bytes, 77, io_read_bytes, io_write_bytes, sample_count, cores,
          memory_mb, disk_gb, incarnation FROM cloud_pod_usage_samples WHERE pod_id = ${pod.podId} AND sample_time = ${after(1)}`);
      // An upsert keeps the mark that is there, which the roll-up then takes away.
      await tx.execute(sql`
        INSERT INTO usage_dirty_hours (hour_start, node_id) SELECT ${hour}, ${node.nodeId}
        WHERE NOT EXISTS (SELECT FROM usage_dirty_hours WHERE hour_start = ${hour} AND node_id = ${node.nodeId})`);
      await rollUpHour(db.system, hour, after(66));
    });
    await rollUpDirty(db.system, after(66));
    expect(await hourly(pod.podId)).toMatchObject({ sample_count: 1n });
  });
});

describe("accrual", () => {
  test("on the fly is what the month's row says once everything is rolled up", async () => {
    await allocate(db.system, pod, { from: after(-26 * 60), to: after(59) });
    await fleet.deliverHour(node, hour);
    await rollUpDirty(db.system, after(4));
    const running = await accruedThisMonth(db.system, pod.tenantId, after(60));
    await rollUpDirty(db.system, after(66));
    const rolled = await accruedThisMonth(db.system, pod.tenantId, after(60));
    const { months } = await levels(pod.podId);
    expect(running.total.compare(rolled.total)).toBe(0);
    expect(rolled.total.compare(Money.of(months?.cost ?? "", "USD"))).toBe(0);
    const own = rolled.perPod.find(({ podId }) => podId === pod.podId);
    expect(own?.total.compare(rolled.total)).toBe(0);
    expect(own?.uptimeMs).toBe(3_600_000n);
  });

  test("grows by the millisecond inside the running hour", async () => {
    await allocate(db.system, pod, { from: hour });
    const at = async (ms: number) =>
      (await accruedThisMonth(db.system, pod.tenantId, new Date(hour.getTime() + ms))).total;
    expect((await at(0)).isZero()).toBe(true);
    expect((await at(1)).compare(toMoney(proportion(toTenBillionths("2"), 1n, monthMs), "USD"))).toBe(0);
    expect((await at(hourMs)).compare(toMoney(proportion(toTenBillionths("2"), 3_600_000n, monthMs), "USD"))).toBe(0);
  });
});

describe("plans", () => {
  test("a whole month of a plan is its price, cut by a change of plan or not, and traffic beyond it is charged where the plan says so", async () => {
    const code = `P${pod.vmid}`;
    await db.system.execute(sql`
      INSERT INTO cloud_pod_plans (code, name, family, cores, memory_mb, disk_gb, bandwidth_gb, overage_policy) VALUES (${code}, 'p', 'shared', 1, 512, 5, 1, 'charge')`);
    await db.system.execute(sql`
      INSERT INTO cloud_pod_plan_prices (id, plan_code, currency, amount, valid) VALUES (gen_random_uuid(), ${code}, 'USD', 3.99, '[2025-01-01,)')`);
    const first = new Date("2026-01-01T00:00:00Z");
    const last = new Date("2026-02-01T00:00:00Z");
    await allocate(db.system, pod, { from: first, mode: "plan", planCode: code });
    await fleet.deliverHour(node, hour, (p, endMs) => sampleOf(p, endMs, { guestOutBytes: 2n ** 30n / 40n }));
    for (;;) {
      const { hours } = await rollUpDirty(db.system, new Date(last.getTime() + 5 * 60_000));
      if (hours === 0) break;
    }
    const [month] = await db.system.query<Figures>(
      sql`SELECT * FROM cloud_pod_usage_monthly WHERE pod_id = ${pod.podId}`,
    );
    const sent = 60n * (2n ** 30n / 40n);
    expect(month).toMatchObject({
      cost_plan: "3.9900000000",
      cost_cpu: "0.0000000000",
      plan_out_bytes: sent,
      overage_bytes: sent - 2n ** 30n,
      days: 31,
    });
    expect(
      Money.of(String(month?.["cost_overage"]), "USD").compare(
        toMoney(proportion(toTenBillionths("0.05"), sent - 2n ** 30n, 2n ** 30n), "USD"),
      ),
    ).toBe(0);
    const accrued = await accruedThisMonth(db.system, pod.tenantId, new Date(last.getTime() - 1));
    expect(accrued.perPart.overage.compare(Money.of(String(month?.["cost_overage"]), "USD"))).toBe(0);
  });
});
