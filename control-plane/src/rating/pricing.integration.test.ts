import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makePerson, makeTenant, send, type Person, type Sent } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { sql } from "../platform/sql.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { registerPricingRoutes } from "./pricing.http.ts";

let db: TestDatabase;
let app: TestApp["app"];
let admin: Person;
beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, {
    register(routes) {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerPricingRoutes(routes);
    },
  }).app;
  admin = await makePerson(db, app, { platformRole: "ADMINISTRATOR" });
});
afterAll(() => db.close());

const prices = { cpuPerHour: "0.02", memoryGbPerHour: "0.006", diskGbPerMonth: "0.2", networkOutGb: "0.1" };
const current = (currency = "USD"): Promise<Sent> => send(app, "GET", `/api/cloud-pods/pricing?currency=${currency}`);
const add = (body: object): Promise<Sent> =>
  send(app, "POST", "/api/cloud-pods/pricing/versions", { headers: admin.headers, body: { ...prices, ...body } });
const list = async (query: string): Promise<Sent> =>
  await send(app, "GET", `/api/cloud-pods/pricing/versions?${query}`, { headers: admin.headers });

describe("GET /api/cloud-pods/pricing", () => {
  test("shows anyone the default of the currency, as decimal text", async () => {
    expect(await current()).toMatchObject({
      status: 200,
      json: {
        name: "standard",
        currency: "USD",
        cpuPerHour: "0.01",
        cpuPerHourUsd: "0.01",
        memoryGbPerHourUsd: "0.005",
        diskGbPerMonthUsd: "0.10",
        networkOutGbUsd: "0.05",
        networkInFree: true,
        effectiveUntil: null,
      },
    });
    expect(await current("CHF")).toMatchObject({ status: 404, json: { error: "PRICING_NOT_FOUND" } });
  });

  test("names no dollars where there are none", async () => {
    expect((await add({ name: "euro", currency: "EUR", isDefault: true })).status).toBe(201);
    const { json } = await current("EUR");
    expect(json).toMatchObject({ currency: "EUR", cpuPerHour: "0.02" });
    expect(Object.keys(json).filter((key) => key.endsWith("Usd"))).toEqual([]);
  });
});

describe("POST /api/cloud-pods/pricing/versions", () => {
  test("the version before ends where the new one begins, and what was the default stays it", async () => {
    const effectiveFrom = new Date(Date.now() + 86_400_000).toISOString();
    const added = await add({ name: "standard", currency: "USD", effectiveFrom });
    expect(added).toMatchObject({ status: 201, json: { isDefault: true, effectiveFrom } });
    expect((await current()).json).toMatchObject({ cpuPerHour: "0.01", effectiveUntil: effectiveFrom });
    expect((await list("name=standard")).json).toMatchObject({
      data: [{ id: added.json["id"] }, { effectiveUntil: effectiveFrom }],
      nextCursor: null,
    });
    const audit = await db.system.query(
      sql`SELECT detail ->> 'name' AS name FROM audit_log WHERE target_id = ${String(added.json["id"])}`,
    );
    expect(audit).toEqual([{ name: "standard" }]);
  });

  test("a time that was rated is over", async () => {
    await add({ name: "used", currency: "GBP", effectiveFrom: "2026-01-01T00:00:00Z" });
    await db.system.execute(sql`INSERT INTO usage_hours (hour_start) VALUES ('2026-03-31T23:00Z')`);
    const refused = { status: 409, json: { error: "PRICING_USED" } };
    const wish = { name: "used", currency: "GBP" };
    expect(await add({ ...wish, effectiveFrom: "2026-03-31T23:59:59Z" })).toMatchObject(refused);
    expect((await list("name=used")).json).toMatchObject({ data: [{ effectiveUntil: null }] });
    expect((await add({ ...wish, effectiveFrom: "2026-04-01T00:00:00Z" })).status).toBe(201);
    await expect(
      db.system.execute(
        sql`UPDATE cloud_pod_pricing SET cpu_per_hour = 9 WHERE name = 'used' AND effective_until IS NOT NULL`,
      ),
    ).rejects.toMatchObject({ code: "CP002" });
    await db.system.execute(sql`DELETE FROM usage_hours`);
  });

  test("no two at a time, and no two defaults", async () => {
    const from = (days: number) => new Date(Date.UTC(2031, 0, days)).toISOString();
    expect((await add({ name: "a", currency: "JPY", isDefault: true, effectiveFrom: from(10) })).status).toBe(201);
    const overlaps = { status: 409, json: { error: "PRICING_OVERLAPS" } };
    expect(await add({ name: "a", currency: "JPY", effectiveFrom: from(5) })).toMatchObject(overlaps);
    expect(await add({ name: "b", currency: "JPY", isDefault: true, effectiveFrom: from(11) })).toMatchObject(overlaps);
    expect((await add({ name: "a", currency: "JPY", effectiveFrom: from(5), effectiveUntil: from(10) })).status).toBe(
      201,
    );
  });

  test.each([
    ["a number for a price", { cpuPerHour: 0.01 }],
    ["a negative price", { cpuPerHour: "-1" }],
    ["eleven places", { cpuPerHour: "0.00000000001" }],
    ["a name with spaces", { name: "My list" }],
    ["an end before the beginning", { effectiveUntil: "2020-01-01T00:00:00Z" }],
    ["an unknown member", { vat: "1" }],
  ])("refuses %s", async (_, changes) => {
    expect((await add({ name: "x", currency: "USD", ...changes })).status).toBe(422);
  });
});

describe("GET /api/cloud-pods/pricing/versions", () => {
  test("pages through all of them, newest first, without loss or repetition", async () => {
    for (let day = 1; day <= 5; day++)
      await add({ name: "paged", currency: "SEK", effectiveFrom: `2031-01-0${day}T00:00:00Z` });
    const seen: string[] = [];
    for (let more = ""; ;) {
      const { json } = await list(`name=paged&limit=2${more}`);
      const { data, nextCursor } = json as { data: { effectiveFrom: string }[]; nextCursor: string | null };
      seen.push(...data.map(({ effectiveFrom }) => effectiveFrom.slice(8, 10)));
      if (nextCursor === null) break;
      more = `&cursor=${nextCursor}`;
    }
    expect(seen).toEqual(["05", "04", "03", "02", "01"]);
  });

  test("is for administrators", async () => {
    const operator = await makePerson(db, app, { platformRole: "OPERATOR" });
    const owner = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
    for (const { headers } of [operator, owner]) {
      expect((await send(app, "GET", "/api/cloud-pods/pricing/versions", { headers })).status).toBe(403);
      expect((await send(app, "POST", "/api/cloud-pods/pricing/versions", { headers, body: {} })).status).toBe(403);
    }
  });
});
