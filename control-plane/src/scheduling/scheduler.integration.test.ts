import { afterAll, beforeAll, expect, it } from "vitest";
import { makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { insertFleet, insertPods } from "../../../test/support/placement-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { seedPlans } from "../plans/seed-plans.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { createFleetView } from "./fleet-view.ts";
import { NoCapacityError, recordPlacementFailure } from "./no-capacity.ts";
import { placePod } from "./place-pod.ts";
import { registerSchedulerRoutes } from "./scheduler.http.ts";

let db: TestDatabase;
let app: TestApp["app"];
let operator: Person;
const fleet = createFleetView();
beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, {
    register: (routes) => {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerSchedulerRoutes(routes, { fleet });
    },
  }).app;
  operator = await makePerson(db, app, { platformRole: "OPERATOR" });
  await db.system.transaction((tx) => seedPlans(tx));
  await insertFleet(db.system, { nodes: 3, cores: 16, memoryMb: 8_192, diskGb: 250 });
  await db.system.execute(sql`UPDATE nodes SET schedulable = false WHERE name = 'node-00001'`);
});
afterAll(() => db.close());

const simulate = (body: unknown, person = operator) =>
  send(app, "POST", "/api/scheduler/simulate", { headers: person.headers, body });

it("tells where a pod would go and why not elsewhere, and claims nothing", async () => {
  const { status, json } = await simulate({ planCode: "business" });
  expect(status).toBe(200);
  expect(json).toMatchObject({
    summary: "2 of 3 nodes: 1 cordoned",
    nodes: 3,
    fitting: 2,
    reasons: [{ filter: "schedulable", nodes: 1 }],
    rejected: [{ node: "node-00001", filter: "schedulable", reason: "cordoned" }],
  });
  expect(json["chosen"]).toEqual((json["candidates"] as unknown[])[0]);
  expect(await db.system.query(sql`SELECT FROM node_claims`)).toEqual([]);
});

it("tells why a pod would go nowhere", async () => {
  expect((await simulate({ resources: { cores: 1, memoryMb: 8_704, diskGb: 1 } })).json).toMatchObject({
    summary: "0 of 3 nodes: 1 cordoned, 2 short of memory by 512 MB",
    chosen: null,
  });
  expect((await simulate({ planCode: "MINI", region: "mars" })).json).toMatchObject({
    summary: "0 of 3 nodes: 3 in another region",
  });
});

it("refuses a simulation without or with two sizes, of an unknown plan, and callers who are no operators", async () => {
  const resources = { cores: 1, memoryMb: 512, diskGb: 1 };
  for (const body of [
    {},
    { planCode: "MINI", resources },
    { resources: { ...resources, cores: 0 } },
    { resources, where: "here" },
  ]) {
    expect(await simulate(body)).toMatchObject({ status: 422 });
  }
  expect(await simulate({ planCode: "gold" })).toMatchObject({ status: 404, json: { error: "PLAN_NOT_FOUND" } });
  const customer = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
  expect((await simulate({ resources }, customer)).status).toBe(403);
  expect((await send(app, "GET", "/api/scheduler/headroom", { headers: customer.headers })).status).toBe(403);
});

it("counts how many more of each plan fit", async () => {
  const { json } = await send(app, "GET", "/api/scheduler/headroom", { headers: operator.headers });
  expect(json["regions"]).toMatchObject([{ region: "eu", nodes: 2 }]);
  const [region] = json["regions"] as { plans: { planCode: string; pods: number }[] }[];
  const pods = Object.fromEntries(region?.plans.map((plan) => [plan.planCode, plan.pods]) ?? []);
  expect(pods).toMatchObject({ CLOUD_POD_STUDENT: 16, CLOUD_POD_STARTER: 16, CLOUD_POD_BUSINESS: 4, ENTERPRISE: 2 });
});

it("keeps an order that found no place, with the reasons, after the order was rolled back", async () => {
  const tenantId = await makeTenant(db);
  const request = { cores: 1, memoryMb: 8_704, diskGb: 1 };
  const [pod] = await insertPods(db.system, [tenantId], request);
  if (pod === undefined) throw new Error("no pod");
  const order = db.api.transaction((tx) => placePod(tx, fleet, { ...pod, generation: 1n, request }), { tenantId });
  const error: unknown = await order.catch((reason: unknown) => reason);
  if (!(error instanceof NoCapacityError)) throw new Error("the order found a place");
  const failure = { tenantId, actor: systemActor("test"), requestId: "request-1", error };
  await db.api.transaction((tx) => recordPlacementFailure(tx, failure), { tenantId });
  const kept = await db.system.query(
    sql`SELECT tenant_id, request, summary, verdicts->'reasons' AS reasons FROM placement_failures`,
  );
  expect(kept).toEqual([
    {
      tenant_id: tenantId,
      request,
      summary: "0 of 3 nodes: 1 cordoned, 2 short of memory by 512 MB",
      reasons: [
        { filter: "schedulable", nodes: 1 },
        { filter: "memory", nodes: 2 },
      ],
    },
  ]);
  await db.api.transaction((tx) => recordPlacementFailure(tx, failure), { tenantId });
  await db.system.execute(sql`
    INSERT INTO placement_failures (id, tenant_id, at, request, verdicts, summary)
    VALUES (gen_random_uuid(), ${tenantId}, now() - interval '8 days', '{"cores": 99, "memoryMb": 1, "diskGb": 1}', '{}', 'long ago')`);
  const { json } = await send(app, "GET", "/api/scheduler/headroom", { headers: operator.headers });
  expect(json["failures"]).toEqual([
    {
      region: null,
      planCode: null,
      cores: 1,
      memoryMb: 8_704,
      diskGb: 1,
      orders: 2,
      lastAt: expect.any(String),
      summary: "0 of 3 nodes: 1 cordoned, 2 short of memory by 512 MB",
    },
  ]);
  const audit = await db.system.query(
    sql`SELECT request_id FROM audit_log WHERE action = 'placement.fail' AND tenant_id = ${tenantId}`,
  );
  expect(audit).toEqual([{ request_id: "request-1" }, { request_id: "request-1" }]);
});
