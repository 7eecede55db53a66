import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { Money } from "@cloudpods/shared/money";
import { allocate, deliveringFleet } from "../../../test/support/metered-fleet.ts";
import { makeTenant } from "../../../test/support/people.ts";
import { makePod, type MadePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sampleOf, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { insertUsageDay, insertUsageMonth } from "../../../test/support/usage-rows.ts";
import { rollUpDirty } from "../metering/roll-up.ts";
import { sql } from "../platform/sql.ts";
import { accruedThisMonth } from "../rating/accrual.ts";
import { decimalQuotient } from "./exact-decimal.ts";
import { exportUsage } from "./export-usage.ts";
import { usageMonth } from "./usage-month.ts";

let db: TestDatabase;
let tenantId: string;
let pod: MadePod;
const now = new Date("2026-02-10T12:00:00Z");

beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());
beforeEach(async () => {
  tenantId = await makeTenant(db);
  pod = await makePod(db, tenantId, { hostname: "shop" });
});

interface Exported {
  readonly text: string;
  readonly parts: number;
  readonly rows: Record<string, string>[];
  /** Exact sum of a column. */
  readonly sum: (column: string) => string;
}

async function exported(yearMonth = "2026-01", login: "api" | "system" = "api", at = now): Promise<Exported> {
  const options = {
    tenantId,
    month: usageMonth(yearMonth),
    now: at,
    read: <T>(work: Parameters<typeof db.api.transaction<T>>[0]) => db[login].transaction(work, { tenantId }),
  };
  let text = "";
  let parts = 0;
  for await (const part of await exportUsage(options)) {
    text += part;
    parts++;
  }
  const [head = "", ...lines] = text.trimEnd().split("\r\n");
  const columns = head.split(",");
  const rows = lines.map((line) =>
    Object.fromEntries(splitLine(line).map((value, index) => [columns[index] ?? "?", value])),
  );
  const sum = (column: string) =>
    Money.sum(
      rows.map((row) => Money.of(row[column] ?? "", "USD")),
      "USD",
    ).toString();
  return { text, parts, rows, sum };
}

/** The fields of a record without line breaks inside. */
function splitLine(line: string): string[] {
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(
    ([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain ?? "",
  );
}

const dayMs = 86_400_000n;

describe("exportUsage", () => {
  test("says who, what, when and how much, in one row for each charge", async () => {
    await db.system.execute(sql`
      UPDATE cloud_pods SET name = ${'=1+1,"x"'}, labels = '{"team":"a, b"}' WHERE id = ${pod.id}`);
    await insertUsageDay(db.system, {
      tenantId,
      podId: pod.id,
      date: "2026-01-31",
      uptimeMs: dayMs,
      coreMs: 2n * dayMs,
      diskGbMs: 31n * dayMs,
      outBytes: 3n * 2n ** 30n,
      costCpu: "0.48",
      costDisk: "0.1000000001",
    });
    const { rows } = await exported();
    expect(rows).toHaveLength(2);
    expect(rows[0]).toEqual({
      BilledCost: "0.4800000000",
      BillingAccountId: tenantId,
      BillingAccountName: expect.stringMatching(/^tenant-/),
      BillingCurrency: "USD",
      BillingPeriodEnd: "2026-02-01T00:00:00Z",
      BillingPeriodStart: "2026-01-01T00:00:00Z",
      ChargeCategory: "Usage",
      ChargeClass: "",
      ChargeDescription: "Processor cores while the pod ran",
      ChargeFrequency: "Usage-Based",
      ChargePeriodEnd: "2026-02-01T00:00:00Z",
      ChargePeriodStart: "2026-01-31T00:00:00Z",
      ConsumedQuantity: "48.0000000000",
      ConsumedUnit: "vCPU-Hours",
      ContractedCost: "0.4800000000",
      EffectiveCost: "0.4800000000",
      InvoiceIssuerName: "CloudPods",
      ListCost: "0.4800000000",
      PricingCategory: "Standard",
      PricingQuantity: "48.0000000000",
      PricingUnit: "vCPU-Hours",
      ProviderName: "CloudPods",
      PublisherName: "CloudPods",
      RegionId: "local",
      RegionName: "local",
      ResourceId: pod.id,
      ResourceName: `'=1+1,"x"`,
      ResourceType: "Pod",
      ServiceCategory: "Compute",
      ServiceName: "CloudPods",
      SkuId: "cpu",
      Tags: '{"team":"a, b"}',
    });
    expect(rows[1]).toMatchObject({ SkuId: "disk", PricingQuantity: "1.0000000000", PricingUnit: "GiB-Months" });
  });

  test("sums to the month exactly, over many pages and to the last place", async () => {
    const pods = await db.system.query<{ id: string }>(sql`
      INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, cores, memory_mb, disk_gb, mac)
      SELECT gen_random_uuid(), ${tenantId}, 1000000 + n, 'pod-' || n, 'pod-' || n, 'local', 1, 512, 4, 'bc:24:11:00:00:01'
      FROM generate_series(1, 40) AS n RETURNING id`);
    await db.system.execute(sql`
      INSERT INTO cloud_pod_usage_daily (date, pod_id, tenant_id, sample_count, uptime_ms, running_ms, cpu_usage_us, cpu_capacity_ms,
        cpu_max_basis_points, cpu_histogram, memory_byte_ms, memory_max_bytes, disk_byte_ms, disk_max_bytes, guest_in_bytes, guest_out_bytes,
        io_read_bytes, io_write_bytes, measured_ms, late_ms, not_running_ms, missing_ms, core_ms, memory_mb_ms, disk_gb_ms,
        billable_in_bytes, billable_out_bytes, plan_out_bytes, unpriced_ms, currency, cost_cpu, cost_memory, cost_disk, cost_network_in,
        cost_network_out, cost_plan, hours)
      SELECT '2026-01-01'::date + n, pod, ${tenantId}, 1, 0, 0, 0, 0, 0, '{}', 0, 0, 0, 0, 0, 9223372036854775807, 0, 0, 0, 0, 0, 0,
        9007199254740993, 0, 0, 0, 9223372036854775807, 0, 0, 'USD', 0.0000000001 * (n + 1), 0, 0.3333333333, 0, 12345678.9, 0, 24
      FROM unnest(${pods.map(({ id }) => id)}::uuid[]) AS pod, generate_series(0, 30) AS n`);
    const { sum, parts, rows } = await exported();
    const [whole] = await db.system.query<{ cost: string; out: string }>(sql`
      SELECT trim_scale(sum(cost_total))::text AS cost, sum(guest_out_bytes)::text AS out FROM cloud_pod_usage_daily WHERE tenant_id = ${tenantId}`);
    expect(sum("BilledCost")).toBe(Money.of(whole?.cost ?? "", "USD").toString());
    expect(rows).toHaveLength(40 * 31 * 3);
    expect(parts).toBeGreaterThan(3);
    expect(new Set(rows.map((row) => `${row["ResourceId"]} ${row["ChargePeriodStart"]} ${row["SkuId"]}`)).size).toBe(
      rows.length,
    );
    expect(rows.find(({ SkuId }) => SkuId === "network-out")?.["ConsumedQuantity"]).toBe("8589934591.9999999991");
    expect(rows.find(({ SkuId }) => SkuId === "cpu")?.["ConsumedQuantity"]).toBe("2501999792.9836091667");
  });

  test("what hosts measured arrives at the last row: the month's cost and accrual, exactly", async () => {
    const hour = new Date("2026-02-05T10:00:00Z");
    const end = new Date("2026-02-05T11:00:00Z");
    const fleet = await deliveringFleet(db, { nodes: 1, podsPerNode: 2, since: hour });
    const [node] = fleet.nodes as [FleetNode];
    const [first] = node.pods as [FleetPod];
    await allocate(db.system, first, { from: new Date("2026-02-05T09:17:23.456Z") });
    await fleet.deliverHour(node, hour, (one, endMs) => sampleOf(one, endMs, { guestOutBytes: 123_456_789n }));
    await rollUpDirty(db.system, new Date("2026-02-05T11:06:00Z"));
    await fleet.close();
    ({ tenantId } = first);
    const accrued = await accruedThisMonth(db.system, tenantId, end);
    const { sum, rows } = await exported("2026-02");
    expect(sum("BilledCost")).toBe(accrued.total.toString());
    expect(accrued.total.isZero()).toBe(false);
    const own = rows.filter(({ ResourceId }) => ResourceId === first.podId);
    expect(own.map(({ SkuId }) => SkuId)).toEqual(["cpu", "memory", "disk", "network-out"]);
    const traffic = rows.find(({ SkuId }) => SkuId === "network-out");
    expect(traffic?.["ConsumedQuantity"]).toBe(decimalQuotient(60n * 123_456_789n, 2n ** 30n, 10));
  });

  test("what only the month knows comes with the month", async () => {
    await insertUsageDay(db.system, { tenantId, podId: pod.id, date: "2026-01-05", costPlan: "0.10" });
    await insertUsageMonth(db.system, {
      tenantId,
      podId: pod.id,
      yearMonth: "2026-01",
      costPlan: "0.10",
      costOverage: "2.5",
      overageBytes: 50n * 2n ** 30n,
    });
    const { rows, sum } = await exported();
    expect(rows.map(({ SkuId }) => SkuId)).toEqual(["plan", "plan-overage"]);
    expect(rows[1]).toMatchObject({
      PricingQuantity: "50.0000000000",
      ChargePeriodStart: "2026-01-01T00:00:00Z",
      ChargePeriodEnd: "2026-02-01T00:00:00Z",
    });
    expect(sum("BilledCost")).toBe("2.60");
  });

  test("a closed month sums to what was billed, whatever came after", async () => {
    await insertUsageDay(db.system, { tenantId, podId: pod.id, date: "2026-01-05", costPlan: "5.25" });
    await insertUsageMonth(db.system, {
      tenantId,
      podId: pod.id,
      yearMonth: "2026-01",
      costPlan: "5.25",
      billedCost: "5",
      adjustedCost: "0.25",
    });
    const { rows, sum } = await exported();
    expect(sum("BilledCost")).toBe("5.00");
    expect(rows.at(-1)).toMatchObject({ ChargeCategory: "Adjustment", BilledCost: "-0.2500000000", PricingUnit: "" });
  });

  test("a month whose days are gone is told by the months themselves", async () => {
    await insertUsageMonth(db.system, {
      tenantId,
      podId: pod.id,
      yearMonth: "2024-12",
      costPlan: "7",
      costOverage: "1",
    });
    const { rows, sum } = await exported("2024-12");
    expect(rows.map(({ SkuId }) => SkuId)).toEqual(["plan-overage", "plan"]);
    expect(sum("BilledCost")).toBe("8.00");
  });

  test("what is free is seen too", async () => {
    await insertUsageDay(db.system, { tenantId, podId: pod.id, date: "2026-01-05", uptimeMs: dayMs });
    const { rows } = await exported();
    expect(rows).toMatchObject([
      { SkuId: "plan", ChargeCategory: "Purchase", ConsumedQuantity: "", PricingUnit: "Months" },
    ]);
  });

  test("is the same for the command line's login, and never another tenant's", async () => {
    await insertUsageDay(db.system, { tenantId, podId: pod.id, date: "2026-01-05", costPlan: "1" });
    const mine = await exported();
    expect((await exported("2026-01", "system")).text).toBe(mine.text);
    tenantId = await makeTenant(db);
    for (const login of ["api", "system"] as const) {
      expect((await exported("2026-01", login)).rows).toEqual([]);
    }
  });

  test("knows no tenant that does not exist", async () => {
    tenantId = newId();
    await expect(exported()).rejects.toMatchObject({ code: "TENANT_NOT_FOUND" });
  });
});
