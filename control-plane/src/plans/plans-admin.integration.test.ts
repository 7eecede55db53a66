import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makePerson, makeTenant, send, type Person, type Sent } from "../../../test/support/people.ts";
import { makePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { until } from "../../../test/support/until.ts";
import { sql } from "../platform/sql.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { registerPlanAdminRoutes } from "./plans-admin.http.ts";
import { registerPlanRoutes } from "./plans.http.ts";

let db: TestDatabase;
let app: TestApp["app"];
let admin: Person;
beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, {
    register(routes) {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerPlanRoutes(routes);
      registerPlanAdminRoutes(routes);
    },
  }).app;
  admin = await makePerson(db, app, { platformRole: "ADMINISTRATOR" });
});
afterAll(() => db.close());

let plans = 0;

/** Adds a plan with a code of its own. */
async function add(changes: object = {}): Promise<string> {
  const code = `LARGE_${++plans}`;
  const body = {
    code,
    name: "Large",
    family: "shared",
    cores: 8,
    memoryMb: 16_384,
    diskGb: 400,
    price: { amount: "14.90", currency: "USD" },
    ...changes,
  };
  const answer = await send(app, "POST", "/api/cloud-pods/plans", { headers: admin.headers, body });
  expect(answer.status, answer.text).toBe(201);
  return code;
}

const change = (code: string, body: object): Promise<Sent> =>
  send(app, "PUT", `/api/cloud-pods/plans/${code}`, { headers: admin.headers, body });
const shown = (code: string): Promise<Sent> => send(app, "GET", `/api/cloud-pods/plans/${code}`);

async function sell(code: string): Promise<void> {
  const pod = await makePod(db, await makeTenant(db), { hostname: "sold" });
  await db.system.execute(sql`UPDATE cloud_pods SET plan_code = ${code} WHERE id = ${pod.id}`);
}

describe("POST /api/cloud-pods/plans", () => {
  test("offers the plan at once", async () => {
    const code = await add({ bandwidthGb: 100, overagePolicy: "charge", features: ["NVMe storage"] });
    expect((await shown(code)).json).toMatchObject({
      code,
      cores: 8,
      bandwidthGb: 100,
      overagePolicy: "charge",
      swapMb: 512,
      maxPerTenant: null,
      features: ["NVMe storage"],
      prices: [{ amount: "14.90", currency: "USD" }],
    });
    const audit = await db.system.query(sql`SELECT action FROM audit_log WHERE target_id = ${code}`);
    expect(audit).toEqual([{ action: "plan.create" }]);
  });

  test("refuses a code that is taken", async () => {
    const code = await add();
    const body = {
      code,
      name: "x",
      family: "shared",
      cores: 1,
      memoryMb: 512,
      diskGb: 1,
      price: { amount: "1", currency: "USD" },
    };
    expect(await send(app, "POST", "/api/cloud-pods/plans", { headers: admin.headers, body })).toMatchObject({
      status: 409,
      json: { error: "PLAN_EXISTS" },
    });
  });

  test.each([
    ["a float as price", { price: { amount: 1.5, currency: "USD" } }],
    ["a negative price", { price: { amount: "-1", currency: "USD" } }],
    ["no memory", { memoryMb: 0 }],
    ["a member that does not exist", { ram: 1 }],
    ["a code in small letters", { code: "large" }],
  ])("refuses %s", async (_, changes) => {
    const body = {
      code: "X1",
      name: "x",
      family: "shared",
      cores: 1,
      memoryMb: 512,
      diskGb: 1,
      price: { amount: "1", currency: "USD" },
      ...changes,
    };
    expect((await send(app, "POST", "/api/cloud-pods/plans", { headers: admin.headers, body })).status).toBe(422);
  });
});

describe("PUT /api/cloud-pods/plans/:code", () => {
  test("changes what nobody has bought yet, and only what was named", async () => {
    const code = await add({ description: "first" });
    expect((await change(code, { cores: 4, name: "Larger" })).json).toMatchObject({
      cores: 4,
      name: "Larger",
      description: "first",
    });
    expect((await change(code, { isActive: false })).json).toMatchObject({ isActive: false });
    expect((await shown(code)).status).toBe(404);
    // As for orders, and also where nobody can order it any more.
    const inShort = code.replace("LARGE_", "");
    expect((await change(inShort, { isActive: true })).json).toMatchObject({ code, isActive: true });
    expect(await change("LARGE", { name: "Any" })).toMatchObject({ status: 404, json: { error: "PLAN_NOT_FOUND" } });
  });

  test("changes only the version that the administrator saw, terms and price alike", async () => {
    const code = await add();
    const put = (ifMatch: string, body: object) =>
      send(app, "PUT", `/api/cloud-pods/plans/${code}`, { headers: { ...admin.headers, "if-match": ifMatch }, body });
    const seen = (await shown(code)).headers.get("etag") ?? "";
    const changed = await put(seen, { price: { amount: "15.90", currency: "USD" } });
    expect(changed).toMatchObject({ status: 200, json: { version: 2 } });
    expect(await put(seen, { name: "Late" })).toMatchObject({ status: 412, json: { error: "VERSION_MISMATCH" } });
    expect(await put(seen, { price: { amount: "1.00", currency: "USD" } })).toMatchObject({ status: 412 });
    expect((await shown(code)).json).toEqual({ ...changed.json, isActive: undefined });
    expect(await put(changed.headers.get("etag") ?? "", { name: "In time" })).toMatchObject({ json: { version: 3 } });
  });

  test("a plan that was sold keeps its terms, the rest can change", async () => {
    const code = await add({ bandwidthGb: 50 });
    await sell(code);
    expect(await change(code, { diskGb: 500, bandwidthGb: null, cores: 8, name: "New" })).toMatchObject({
      status: 409,
      json: { error: "PLAN_IN_USE", details: { fields: ["diskGb", "bandwidthGb"] } },
    });
    expect((await shown(code)).json).toMatchObject({ name: "Large", diskGb: 400 });
    expect((await change(code, { name: "New", cores: 8, features: [] })).json).toMatchObject({ name: "New" });
  });

  test("an order in flight is waited for", async () => {
    const code = await add();
    const tenantId = await makeTenant(db);
    const changed = await db.system.transaction(async (tx) => {
      await tx.execute(sql`
        INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, plan_code, cores, memory_mb, disk_gb, mac)
        VALUES (gen_random_uuid(), ${tenantId}, 99, 'x', 'x', 'local', ${code}, 1, 512, 4, 'bc:24:11:00:00:02')`);
      const answer = change(code, { cores: 1 });
      await until("the change to wait for the order", async () => {
        const waiting = await db.system.query(
          sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
        return waiting.length > 0;
      });
      return { answer };
    });
    expect((await changed.answer).json).toMatchObject({ error: "PLAN_IN_USE" });
  });

  test("a new price counts from its time on and leaves the old one as it was", async () => {
    const code = await add();
    await sell(code);
    expect((await change(code, { price: { amount: "15.90", currency: "USD" } })).json).toMatchObject({
      prices: [{ amount: "15.90", currency: "USD" }],
    });
    const from = new Date(Date.now() + 86_400_000).toISOString();
    expect((await change(code, { price: { amount: "16.90", currency: "USD", from } })).json).toMatchObject({
      prices: [{ amount: "15.90", currency: "USD" }],
    });
    const prices = await db.system.query<{ amount: string; joined: boolean | null }>(sql`
      SELECT amount::text, lower(valid) = lag(upper(valid)) OVER (ORDER BY lower(valid)) AS joined
      FROM cloud_pod_plan_prices WHERE plan_code = ${code} ORDER BY lower(valid)`);
    expect(prices).toEqual([
      { amount: "14.9000000000", joined: null },
      { amount: "15.9000000000", joined: true },
      { amount: "16.9000000000", joined: true },
    ]);
    expect(await change(code, { price: { amount: "17", currency: "USD" } })).toMatchObject({
      status: 409,
      json: { error: "PLAN_PRICE_SCHEDULED" },
    });
    expect((await change(code, { price: { amount: "9", currency: "EUR" } })).json).toMatchObject({
      prices: [
        { amount: "9.00", currency: "EUR" },
        { amount: "15.90", currency: "USD" },
      ],
    });
  });

  test("no price changes the past", async () => {
    const code = await add();
    const from = new Date(Date.now() - 1_000).toISOString();
    expect(await change(code, { price: { amount: "1", currency: "USD", from } })).toMatchObject({
      status: 422,
      json: { error: "PRICE_IN_THE_PAST" },
    });
  });

  test("knows no plan that does not exist, and no stranger", async () => {
    expect(await change("NONE", { name: "x" })).toMatchObject({ status: 404, json: { error: "PLAN_NOT_FOUND" } });
    const operator = await makePerson(db, app, { platformRole: "OPERATOR" });
    const answer = await send(app, "PUT", "/api/cloud-pods/plans/X", {
      headers: operator.headers,
      body: { name: "x" },
    });
    expect(answer.status).toBe(403);
  });
});
