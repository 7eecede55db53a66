import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { makeApiToken, makePerson, makeTenant, send, type Person, type Sent } from "../../../test/support/people.ts";
import { makePod, type MadePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { insertUsageDay } from "../../../test/support/usage-rows.ts";
import { buildWholeTestApp, type WholeTestApp } from "../../../test/support/whole-app.ts";
import { sql } from "../platform/sql.ts";
import { seedPlans } from "../plans/seed-plans.ts";
import { accrueByTime, toMoney, toTenBillionths } from "../rating/rules.ts";
import { usageMonthOf } from "./usage-month.ts";

let db: TestDatabase;
let whole: WholeTestApp;
let tenantId: string;
let owner: Person;
let stranger: Person;
let pod: MadePod;
const dayMs = 86_400_000;

beforeAll(async () => {
  db = await createTestDatabase();
  whole = await buildWholeTestApp(db);
  await db.system.transaction((tx) => seedPlans(tx));
});
afterAll(async () => {
  await whole.close();
  await db.close();
});
beforeEach(async () => {
  tenantId = await makeTenant(db);
  owner = await makePerson(db, whole.app, { tenants: { [tenantId]: "owner" } });
  stranger = await makePerson(db, whole.app, { tenants: { [await makeTenant(db)]: "owner" } });
  pod = await makePod(db, tenantId, { hostname: "shop" });
});

const get = (path: string, person = owner): Promise<Sent> =>
  send(whole.app, "GET", `/api/cloud-pods${path}`, { headers: person.headers });

/** The pod has been on the plan ENTERPRISE (79.99 a month) for so many days. */
async function onPlan(days: number): Promise<Date> {
  const since = new Date(Date.now() - days * dayMs);
  await db.system.execute(sql`UPDATE cloud_pods SET activated_at = ${since} WHERE id = ${pod.id}`);
  await db.system.execute(sql`
    INSERT INTO cloud_pod_allocations (id, tenant_id, pod_id, valid, plan_code, billing_mode, cores, memory_mb, disk_gb)
    VALUES (${newId()}, ${tenantId}, ${pod.id}, tstzrange(${since}, NULL), 'ENTERPRISE', 'plan', 1, 512, 4)`);
  return since;
}

/** What the plan costs between two instants of the month of `until`. */
function planCost(since: Date, from: Date, until: Date): string {
  const month = usageMonthOf(until);
  const into = (at: Date): bigint => BigInt(Math.max(0, at.getTime() - month.start.getTime()));
  const stretch = { anchorMs: into(since), fromMs: into(from), toMs: into(until) };
  const monthMs = BigInt(month.end.getTime() - month.start.getTime());
  return toMoney(accrueByTime(toTenBillionths("79.99"), 1n, stretch, monthMs), "USD").toString();
}

describe("GET /usage/current", () => {
  test("is what has accrued to this very moment, with the budget it is judged by", async () => {
    const since = await onPlan(0.5);
    await db.system.execute(sql`
      INSERT INTO cloud_pod_budgets (tenant_id, monthly_limit_amount, currency) VALUES (${tenantId}, 0.5, 'USD')
      ON CONFLICT (tenant_id) DO UPDATE SET monthly_limit_amount = 0.5`);
    const { status, json } = await get("/usage/current");
    expect(status).toBe(200);
    const at = new Date(String(json["at"]));
    const amount = planCost(since, since, at);
    const percent = Math.floor(Number(amount) * 2_000) / 10;
    expect(json).toMatchObject({
      yearMonth: usageMonthOf(at).yearMonth,
      timezone: "UTC",
      totalCost: { amount, currency: "USD" },
      totalNetworkOutBytes: "0",
      podBreakdown: [{ podId: pod.id, podName: "shop", totalCost: { amount } }],
      budget: { monthlyLimitUsd: "0.50", percentUsed: percent.toFixed(1) },
    });
  });

  test("has nothing of another tenant, and nothing to say before the first pod", async () => {
    await onPlan(1);
    await db.system.execute(sql`DELETE FROM cloud_pod_budgets`);
    const { json } = await get("/usage/current", stranger);
    expect(json).toMatchObject({ totalCostUsd: "0.00", totalUptimeHours: "0.0", podBreakdown: [], budget: null });
  });
});

describe("GET /:pod/usage", () => {
  test("shows UTC days oldest first, with what is known of every minute", async () => {
    const today = new Date().toISOString().slice(0, 10);
    const before = (days: number) => new Date(Date.now() - days * dayMs).toISOString().slice(0, 10);
    await insertUsageDay(db.system, { tenantId, podId: pod.id, date: today, costPlan: "0.1" });
    await insertUsageDay(db.system, {
      tenantId,
      podId: pod.id,
      date: before(1),
      uptimeMs: 72_000_000n,
      lateMs: 3_600_000n,
      notRunningMs: 7_200_000n,
      missingMs: 3_600_000n,
      inBytes: 2n ** 53n + 1n,
      outBytes: 2n ** 63n - 1n,
      costPlan: "0.3333333333",
    });
    await insertUsageDay(db.system, { tenantId, podId: pod.id, date: before(2) });
    const { status, json } = await get(`/${pod.vmid}/usage?days=2`);
    expect(status).toBe(200);
    expect(json).toMatchObject({
      podId: pod.id,
      period: "2 days",
      timezone: "UTC",
      dailyUsage: [
        {
          date: before(1),
          cpuAvgPercent: null,
          memoryAvgMb: 0,
          networkInBytes: "9007199254740993",
          networkOutBytes: "9223372036854775807",
          networkInTotalGb: expect.closeTo(8_388_608, 6),
          uptimeHours: 20,
          minutes: { measured: 1_200, late: 60, notRunning: 120, missing: 60 },
          estimatedCost: { amount: "0.3333333333", currency: "USD" },
          estimatedCostUsd: "0.33",
        },
        { date: today },
      ],
    });
  });

  test.each(["0", "367", "x", "1.5"])("refuses days=%s", async (days) => {
    expect((await get(`/${pod.id}/usage?days=${days}`)).status).toBe(422);
  });

  test("does not know another tenant's pod", async () => {
    await insertUsageDay(db.system, { tenantId, podId: pod.id, date: new Date().toISOString().slice(0, 10) });
    expect(await get(`/${pod.id}/usage`, stranger)).toMatchObject({ status: 404, json: { error: "POD_NOT_FOUND" } });
  });

  test("the tenants' login sees its own rows through the views alone", async () => {
    await insertUsageDay(db.system, { tenantId, podId: pod.id, date: "2026-01-01" });
    const seenBy = (id: string) =>
      db.api.transaction((tx) => tx.query(sql`SELECT FROM tenant_usage_daily WHERE pod_id = ${pod.id}`), {
        tenantId: id,
      });
    expect(await seenBy(tenantId)).toHaveLength(1);
    expect(await seenBy(newId())).toHaveLength(0);
    await expect(db.api.query(sql`SELECT FROM cloud_pod_usage_daily`)).rejects.toThrow("permission denied");
  });
});

describe("POST /usage/estimate", () => {
  const estimate = (body: object): Promise<Sent> =>
    send(whole.app, "POST", "/api/cloud-pods/usage/estimate", { headers: owner.headers, body });

  test("2 vCPU, 4 GB and 50 GB without traffic are 34.20; without a word on traffic 34.70", async () => {
    expect((await estimate({ vcpus: 2, memoryMb: 4_096, diskGb: 50, estimatedNetworkOutGb: 0 })).json).toEqual({
      breakdown: { cpuCost: "14.60", memoryCost: "14.60", diskCost: "5.00", networkCost: "0.00" },
      totalMonthly: { amount: "34.20", currency: "USD" },
      totalMonthlyUsd: "34.20",
      hoursPerMonth: 730,
      pricing: "standard",
    });
    expect((await estimate({ cores: 2, memoryMb: 4_096, diskGb: 50 })).json).toMatchObject({
      breakdown: { networkCost: "0.50" },
      totalMonthlyUsd: "34.70",
    });
  });

  test("counts by the price list that the tenant named", async () => {
    await db.system.execute(sql`
      INSERT INTO cloud_pod_pricing (name, currency, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month, network_out_gb, effective_from)
      VALUES (${`deal-${tenantId}`.slice(0, 40)}, 'USD', 1, 0, 0, 0, now() - interval '1 day')`);
    await db.system.execute(
      sql`UPDATE tenants SET pricing_name = ${`deal-${tenantId}`.slice(0, 40)} WHERE id = ${tenantId}`,
    );
    expect((await estimate({ vcpus: 1, memoryMb: 1_024, diskGb: 1 })).json).toMatchObject({
      totalMonthlyUsd: "730.00",
    });
  });

  test.each([
    ["neither cores nor vcpus", { memoryMb: 1_024, diskGb: 1 }],
    ["both", { cores: 1, vcpus: 1, memoryMb: 1_024, diskGb: 1 }],
    ["half a core", { vcpus: 0.5, memoryMb: 1_024, diskGb: 1 }],
    ["negative traffic", { vcpus: 1, memoryMb: 1_024, diskGb: 1, estimatedNetworkOutGb: -1 }],
  ])("refuses %s", async (_, body) => {
    expect((await estimate(body)).status).toBe(422);
  });
});

describe("GET /usage/forecast", () => {
  test("adds to what is accrued the plan's rest and the pace of what varies", async () => {
    const since = await onPlan(20);
    for (let days = 1; days <= 19; days++) {
      const date = new Date(Date.now() - days * dayMs).toISOString().slice(0, 10);
      await insertUsageDay(db.system, { tenantId, podId: pod.id, date, costNetworkOut: "2" });
    }
    const { status, json } = await get("/usage/forecast");
    expect(status).toBe(200);
    const at = new Date(String(json["at"]));
    const { end } = usageMonthOf(at);
    const accrued = (json["accruedCost"] as { amount: string }).amount;
    const remainingDays = (end.getTime() - at.getTime()) / dayMs;
    const expected = Number(accrued) + Number(planCost(since, at, new Date(end.getTime() - 1))) + 2 * remainingDays;
    expect(json).toMatchObject({ timezone: "UTC", daysObserved: 19, interval: { level: 0.8 } });
    expect(Number(json["expectedCostUsd"])).toBeCloseTo(expected, 1);
  });

  test("claims no interval from a few days, and shows nothing of others", async () => {
    await onPlan(2);
    expect((await get("/usage/forecast")).json).toMatchObject({ interval: null });
    expect((await get("/usage/forecast", stranger)).json).toMatchObject({ expectedCostUsd: "0.00", daysObserved: 0 });
  });
});

describe("GET /usage/stream", () => {
  test("begins with what has accrued", async () => {
    const since = await onPlan(1);
    const response = await whole.app.request("/api/cloud-pods/usage/stream", { headers: { ...owner.headers } });
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader() ?? expect.fail("no body");
    const { value = "" } = await reader.read();
    await reader.cancel();
    expect(value).toMatch(/^event: accrued\ndata: /);
    const event: { at: string; totalCost: unknown; pods: unknown[] } = JSON.parse(value.slice(value.indexOf("{")));
    expect(event.totalCost).toEqual({ amount: planCost(since, since, new Date(event.at)), currency: "USD" });
    expect(event.pods).toMatchObject([{ podId: pod.id }]);
  });
});

describe("GET /usage/export", () => {
  test("is a CSV file of the tenant's own month", async () => {
    // Of a month that began a year ago the days are not asked any more.
    const { yearMonth } = usageMonthOf(new Date());
    await insertUsageDay(db.system, { tenantId, podId: pod.id, date: `${yearMonth}-01`, costPlan: "1" });
    const answer = await get(`/usage/export?month=${yearMonth}&format=focus`);
    expect(answer.headers.get("content-type")).toBe("text/csv; charset=utf-8");
    expect(answer.headers.get("content-disposition")).toContain(`usage-${yearMonth}.csv`);
    expect(answer.text.split("\r\n")).toHaveLength(3);
    expect(answer.text).toContain(pod.id);
    expect((await get(`/usage/export?month=${yearMonth}`, stranger)).text.split("\r\n")).toHaveLength(2);
  });

  test.each(["month=2026-13", "month=january", "format=xlsx"])("refuses %s", async (query) => {
    expect((await get(`/usage/export?${query}`)).status).toBe(422);
  });

  test("needs the scope READ", async () => {
    const token = await makeApiToken(whole.app, owner, { scopes: ["WRITE"] });
    expect((await send(whole.app, "GET", "/api/cloud-pods/usage/export", { headers: token.headers })).status).toBe(403);
  });
});
