import { afterAll, beforeAll, expect, it } from "vitest";
import { send } from "../../../test/support/people.ts";
import { insertFleet } from "../../../test/support/placement-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { sql } from "../platform/sql.ts";
import { registerPlanRoutes } from "./plans.http.ts";
import { seedPlans } from "./seed-plans.ts";

let db: TestDatabase;
let app: TestApp["app"];
beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, { register: registerPlanRoutes }).app;
});
afterAll(() => db.close());

const get = (path: string) => send(app, "GET", path);

it("answers empty lists, and no invented row, before there is anything", async () => {
  for (const path of ["plans", "templates", "regions"]) {
    expect(await get(`/api/cloud-pods/${path}`)).toMatchObject({ status: 200, json: { data: [] } });
  }
  expect((await get("/api/cloud-pods/compare")).json).toMatchObject({ plans: [] });
});

it("seeds once, however often and at once, and leaves what an administrator changed", async () => {
  await Promise.all([1, 2, 3].map(() => db.system.transaction((tx) => seedPlans(tx))));
  await db.system.execute(sql`UPDATE cloud_pod_plans SET disk_gb = 40 WHERE code = 'CLOUD_POD_STARTER'`);
  await db.system.transaction(async (tx) => {
    await tx.execute(sql`
      UPDATE cloud_pod_plan_prices SET valid = tstzrange(lower(valid), now()) WHERE plan_code = 'CLOUD_POD_STARTER'`);
    await tx.execute(sql`
      INSERT INTO cloud_pod_plan_prices (id, plan_code, currency, amount, valid)
      VALUES (gen_random_uuid(), 'CLOUD_POD_STARTER', 'USD', 1.995, tstzrange(now(), NULL))`);
  });
  await db.system.transaction((tx) => seedPlans(tx));
  const [counts] = await db.system.query<{ plans: number; prices: number }>(sql`
    SELECT (SELECT count(*) FROM cloud_pod_plans)::integer AS plans, (SELECT count(*) FROM cloud_pod_plan_prices)::integer AS prices`);
  expect(counts).toEqual({ plans: 8, prices: 9 });
  expect((await get("/api/cloud-pods/plans/starter")).json).toMatchObject({
    diskGb: 40,
    prices: [{ amount: "1.995", currency: "USD" }],
  });
});

it("seeds again after usage was rated, and a plan that is new then from the next hour on", async () => {
  await db.system.execute(sql`DELETE FROM cloud_pod_plan_prices WHERE plan_code = 'MINI'`);
  await db.system.execute(sql`DELETE FROM cloud_pod_plans WHERE code = 'MINI'`);
  await db.system.execute(
    sql`INSERT INTO usage_hours (hour_start) VALUES (date_trunc('hour', now()) - interval '1 hour')`,
  );
  await Promise.all([1, 2].map(() => db.system.transaction((tx) => seedPlans(tx))));
  const prices = await db.system.query(sql`
    SELECT amount::text, lower(valid) = (SELECT max(hour_start) + interval '1 hour' FROM usage_hours) AS after
    FROM cloud_pod_plan_prices WHERE plan_code = 'MINI'`);
  expect(prices).toEqual([{ amount: "9.9900000000", after: true }]);
});

it("lists both families with the price in force", async () => {
  const { json } = await get("/api/cloud-pods/plans");
  const plans = json["data"] as { code: string; prices: { amount: string }[] }[];
  expect(plans.map(({ code, prices }) => [code, prices[0]?.amount])).toEqual([
    ["CLOUD_POD_STUDENT", "0.00"],
    ["CLOUD_POD_STARTER", "1.995"],
    ["CLOUD_POD_PREMIUM", "2.49"],
    ["CLOUD_POD_BUSINESS", "3.99"],
    ["MINI", "9.99"],
    ["PRO", "19.99"],
    ["BUSINESS", "39.99"],
    ["ENTERPRISE", "79.99"],
  ]);
  const managed = (await get("/api/cloud-pods/plans?family=managed")).json["data"] as { code: string }[];
  expect(managed.map(({ code }) => code)).toEqual(["MINI", "PRO", "BUSINESS", "ENTERPRISE"]);
});

it("finds a plan by its code in any case and by its short form, and refuses others", async () => {
  expect((await get("/api/cloud-pods/plans/premium")).json).toMatchObject({
    code: "CLOUD_POD_PREMIUM",
    cores: 2,
    memoryMb: 2_048,
    diskGb: 75,
    bandwidthGb: null,
  });
  expect((await get("/api/cloud-pods/plans/business")).json).toMatchObject({
    code: "BUSINESS",
    family: "managed",
    websitesMax: 50,
    emailsMax: 100,
  });
  expect(await get("/api/cloud-pods/plans/gold")).toMatchObject({ status: 404, json: { error: "PLAN_NOT_FOUND" } });
});

it("offers an inactive plan to nobody", async () => {
  await db.system.execute(sql`UPDATE cloud_pod_plans SET is_active = false WHERE code = 'MINI'`);
  expect((await get("/api/cloud-pods/plans/mini")).status).toBe(404);
  const { plans, rows } = (await get("/api/cloud-pods/compare")).json as {
    plans: { code: string }[];
    rows: { values: unknown[] }[];
  };
  expect(plans.map(({ code }) => code)).not.toContain("MINI");
  expect(rows.every(({ values }) => values.length === plans.length)).toBe(true);
});

it("names regions and templates of the hosts that there are", async () => {
  await insertFleet(db.system, { nodes: 2, cores: 1, memoryMb: 1_024, diskGb: 10, region: "eu" });
  await insertFleet(db.system, { nodes: 1, cores: 1, memoryMb: 1_024, diskGb: 10, region: "us" }, "west");
  await db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE region = 'us'`);
  expect((await get("/api/cloud-pods/regions")).json["data"]).toEqual([
    { region: "eu", acceptsOrders: true },
    { region: "us", acceptsOrders: false },
  ]);
  expect((await get("/api/cloud-pods/templates")).json["data"]).toEqual([
    { template: "ct:9000", regions: ["eu", "us"], nodes: 3 },
  ]);
});
