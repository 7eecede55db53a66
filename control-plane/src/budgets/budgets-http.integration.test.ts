import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { accrueAsTold } from "../../../test/support/accrued.ts";
import { makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { registerNotificationRoutes } from "../notifications/notifications.http.ts";
import { masterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { createTenant } from "../tenancy/create-tenant.ts";
import { registerBudgetRoutes } from "./budgets.http.ts";
import { judgeTenant } from "./judge-tenant.ts";

const webhookRules = { allowPrivate: false };
let db: TestDatabase;
let built: TestApp;
let tenantId: string;
let owner: Person;
let now: Date;
let spendAt: (at: Date) => string;

const accrue = accrueAsTold((_tenantId, at) => ({ spend: spendAt(at) }));

beforeAll(async () => {
  db = await createTestDatabase();
  built = buildTestApp(db, {
    clock: () => now,
    register(routes) {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerNotificationRoutes(routes, { masterKey: masterKey(Buffer.alloc(32, 1)), webhookRules });
      registerBudgetRoutes(routes, { accrue, webhookRules, sampleIntervalMs: 60_000 });
    },
  });
});
afterAll(() => db.close());
beforeEach(async () => {
  now = new Date();
  spendAt = () => "0";
  tenantId = await makeTenant(db);
  owner = await makePerson(db, built.app, { tenants: { [tenantId]: "owner" } });
});

const call = (method: "GET" | "PUT" | "POST", path: string, body?: unknown, headers: Record<string, string> = {}) =>
  send(built.app, method, `/api/cloud-pods/budget${path}`, { headers: { ...owner.headers, ...headers }, body });

test("a new tenant has a budget that alerts and stops nothing; one in a currency without a default has none", async () => {
  expect((await call("GET", "")).json).toMatchObject({
    configured: true,
    monthlyLimit: "100.00",
    monthlyLimitUsd: "100.00",
    currency: "USD",
    alertThreshold1: 50,
    alertThreshold2: 80,
    alertThreshold3: 100,
    hardLimitEnabled: false,
    podsStopped: false,
  });
  const exotic = await db.system.transaction((tx) =>
    createTenant(tx, { slug: "exotic", name: "Exotic", currency: "XPF" }),
  );
  const person = await makePerson(db, built.app, { tenants: { [exotic.id]: "owner" } });
  const answer = await send(built.app, "GET", "/api/cloud-pods/budget", { headers: person.headers });
  expect(answer.json).toEqual({ configured: false });
  const put = (body: unknown) => send(built.app, "PUT", "/api/cloud-pods/budget", { headers: person.headers, body });
  expect(await put({ monthlyLimitUsd: "10" })).toMatchObject({ status: 422, json: { error: "CURRENCY_MISMATCH" } });
});

test("spend, pace and the worst overshoot are shown with the budget", async () => {
  // 36.00 an hour, an hour and a half into the month.
  const begin = Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1);
  now = new Date(Math.max(now.getTime(), begin + 5_400_000));
  spendAt = (at) => ((at.getTime() - begin) / 100_000).toFixed(6);
  const hours = (now.getTime() - begin) / 3_600_000;
  await call("PUT", "", { monthlyLimit: (36 * hours * 2).toFixed(2) });
  const { json } = await call("GET", "");
  expect(json).toMatchObject({
    evaluationDelaySeconds: 240,
    yearMonth: now.toISOString().slice(0, 7),
  });
  expect(Number(json["currentSpend"])).toBeCloseTo(36 * hours, 1);
  expect(Number(json["burnRatePerHour"])).toBeCloseTo(36, 3);
  expect(Number(json["worstCaseOvershoot"])).toBeCloseTo(2.4, 3);
  expect(Number(json["percentUsed"])).toBeCloseTo(50, 0);
});

test("what is set comes back, with a version that a stale writer is refused by", async () => {
  const wish = {
    monthlyLimitUsd: "25.50",
    alertThreshold1: 10,
    alertThreshold2: 20,
    alertThreshold3: 150,
    hardLimitEnabled: true,
    hardLimitAction: "stop_pods",
    notificationEmails: ["pay@example.test"],
  };
  const set = await call("PUT", "", wish, { "if-match": '"1"' });
  expect(set).toMatchObject({ status: 200, json: { ...wish, monthlyLimit: "25.50", webhookUrl: null, version: 2 } });
  expect(set.headers.get("etag")).toBe('"2"');
  expect((await call("PUT", "", wish, { "if-match": '"1"' })).json["error"]).toBe("VERSION_MISMATCH");
});

test.each([
  [{}, "/monthlyLimit"],
  [{ monthlyLimit: "10", monthlyLimitUsd: "10" }, "/monthlyLimit"],
  [{ monthlyLimit: 10 }, "/monthlyLimit"],
  [{ monthlyLimit: "0.00" }, "/monthlyLimit"],
  [{ monthlyLimit: "-1" }, "/monthlyLimit"],
  [{ monthlyLimit: "1e3" }, "/monthlyLimit"],
  [{ monthlyLimit: "10", alertThreshold1: 80 }, "/alertThreshold2"],
  [{ monthlyLimit: "10", alertThreshold1: 0 }, "/alertThreshold1"],
  [{ monthlyLimit: "10", hardLimitAction: "delete_pods" }, "/hardLimitAction"],
  [{ monthlyLimit: "10", notificationEmails: ["nobody"] }, "/notificationEmails/0"],
  [{ monthlyLimit: "10", webhookUrl: "https://10.0.0.1/" }, "/webhookUrl"],
  [{ monthlyLimit: "10", webhookUrl: "https://hooks.example.com/" }, "/webhookUrl"],
])("%j is refused at %s", async (body, pointer) => {
  const answer = await call("PUT", "", body);
  expect(answer.status).toBe(422);
  expect(answer.json["errors"]).toEqual([expect.objectContaining({ pointer })]);
});

test("a webhook of the budget's own needs the secret that it is signed with", async () => {
  const wish = { monthlyLimit: "10", webhookUrl: "https://hooks.example.com/budget" };
  expect((await call("PUT", "", wish)).json["error"]).toBe("WEBHOOK_SECRET_MISSING");
  const path = `/api/tenants/${tenantId}/webhooks`;
  await send(built.app, "PUT", path, { headers: owner.headers, body: { url: null } });
  expect((await call("PUT", "", wish)).status).toBe(200);
  await db.system.transaction(async (tx) => {
    spendAt = () => "5";
    const accrued = (await accrue(tx, [tenantId], now)).get(tenantId);
    if (accrued !== undefined) await judgeTenant(tx, tenantId, accrued);
  });
  const told = await db.system.query(
    sql`SELECT channel, recipient, payload -> 'event' AS event FROM notifications WHERE tenant_id = ${tenantId} AND channel = 'webhook'`,
  );
  expect(told).toEqual([{ channel: "webhook", recipient: wish.webhookUrl, event: "budget.threshold_crossed" }]);
});

test("alerts are listed newest first with what was spent then; who acknowledges first stays", async () => {
  await call("PUT", "", { monthlyLimit: "10" });
  spendAt = () => "8.125";
  await db.system.transaction(async (tx) => {
    const accrued = (await accrue(tx, [tenantId], now)).get(tenantId);
    if (accrued !== undefined) await judgeTenant(tx, tenantId, accrued);
  });
  const list = await call("GET", "/alerts?limit=1");
  expect(list.json["data"]).toEqual([
    expect.objectContaining({
      threshold: 80,
      currentSpend: "8.125",
      budgetLimit: "10",
      currency: "USD",
      percentUsed: "81.2",
      notifiedVia: ["email"],
      acknowledged: false,
    }),
  ]);
  const next = await call("GET", `/alerts?cursor=${String(list.json["nextCursor"])}`);
  expect(next.json["data"]).toEqual([expect.objectContaining({ threshold: 50 })]);
  const [first] = list.json["data"] as { id: string }[]; // just compared
  const acknowledged = await call("POST", `/alerts/${first?.id}/acknowledge`);
  expect(acknowledged.json).toMatchObject({ acknowledged: true, acknowledgedBy: owner.userId });
  const other = await makePerson(db, built.app, { tenants: { [tenantId]: "billing" } });
  const again = await send(built.app, "POST", `/api/cloud-pods/budget/alerts/${first?.id}/acknowledge`, {
    headers: other.headers,
  });
  expect(again.json).toEqual(acknowledged.json);
  const audited = await db.system.query(
    sql`SELECT actor_id FROM audit_log WHERE action = 'budget-alert.acknowledge' AND tenant_id = ${tenantId}`,
  );
  expect(audited).toEqual([{ actor_id: owner.userId }]);
});

test("who may only read cannot set or acknowledge", async () => {
  const viewer = await makePerson(db, built.app, { tenants: { [tenantId]: "viewer" } });
  const put = await send(built.app, "PUT", "/api/cloud-pods/budget", {
    headers: viewer.headers,
    body: { monthlyLimit: "1" },
  });
  expect([put.status, put.json["error"]]).toEqual([403, "SCOPE_MISSING"]);
});
