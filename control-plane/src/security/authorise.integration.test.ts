import { newId } from "@cloudpods/shared/ids";
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectAudited } from "../../../test/support/audit.ts";
import { makeApiToken, makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { makePod, type MadePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { z } from "@hono/zod-openapi";
import { route } from "../http/route.ts";
import type { RouteTable } from "../http/route-table.ts";
import { sql } from "../platform/sql.ts";
import { registerSecurityRoutes } from "./security.http.ts";

let db: TestDatabase;
let app: TestApp["app"];
let [mine, theirs] = ["", ""];
let pod: MadePod;
let owner: Person;
let operator: Person;
let administrator: Person;

/** One route for each kind of access; each tells the tenant it acts in and the hostnames that are there. */
function registerProbes(routes: RouteTable): void {
  registerSecurityRoutes(routes, { secureCookies: true });
  const seen = z.object({ tenantId: z.string(), hostnames: z.array(z.string()) });
  for (const [path, scope] of [
    ["/api/seen", "READ"],
    ["/api/cloud-pods/:pod/seen", "READ"],
    ["/api/tasks/:task/seen", "READ"],
    ["/api/money", "BILLING"],
    ["/api/order", "PROVISIONING"],
  ] as const) {
    route(routes, {
      method: "get",
      path,
      summary: "probe",
      tags: [],
      access: { scope },
      responses: { 200: seen },
      async handler(_request, ctx) {
        const rows = await ctx.inTenant((tx) => tx.query<{ hostname: string }>(sql`SELECT hostname FROM cloud_pods`));
        return { status: 200, body: { tenantId: ctx.tenantId, hostnames: rows.map((row) => row.hostname) } };
      },
    });
  }
  for (const role of ["OPERATOR", "ADMINISTRATOR"] as const) {
    for (const method of ["get", "post"] as const) {
      route(routes, {
        method,
        path: `/api/for/${role}`,
        summary: "probe",
        tags: [],
        access: { platform: role },
        responses: { 200: z.object({ ok: z.boolean() }) },
        handler: async () => ({ status: 200, body: { ok: true } }),
      });
    }
  }
}

beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, { register: registerProbes }).app;
  mine = await makeTenant(db);
  theirs = await makeTenant(db);
  pod = await makePod(db, theirs, { hostname: "theirs" });
  await makePod(db, mine, { hostname: "mine" });
  owner = await makePerson(db, app, { tenants: { [mine]: "owner" } });
  operator = await makePerson(db, app, { platformRole: "OPERATOR" });
  administrator = await makePerson(db, app, { platformRole: "ADMINISTRATOR" });
});
afterAll(() => db.close());

const get = (path: string, headers: Readonly<Record<string, string>>) => send(app, "GET", path, { headers });

test("a member of one tenant acts there and sees its rows only", async () => {
  expect((await get("/api/seen", owner.headers)).json).toEqual({ tenantId: mine, hostnames: ["mine"] });
});

test("a member of several names one; another, an unknown and a malformed one do not exist", async () => {
  const [second, third] = [await makeTenant(db), await makeTenant(db)];
  const both = await makePerson(db, app, { tenants: { [second]: "viewer", [third]: "owner" } });
  expect((await get("/api/seen", both.headers)).json).toMatchObject({ status: 422, error: "TENANT_REQUIRED" });
  expect((await get("/api/seen", { ...both.headers, "x-tenant-id": third })).json["tenantId"]).toBe(third);
  for (const stranger of [theirs, newId(), "' OR 1=1 --"]) {
    expect((await get("/api/seen", { ...both.headers, "x-tenant-id": stranger })).json).toMatchObject({
      status: 404,
      error: "TENANT_UNKNOWN",
    });
  }
  // his role in one tenant gives him nothing in the other
  expect((await get("/api/money", { ...both.headers, "x-tenant-id": third })).status).toBe(200);
  expect((await get("/api/money", { ...both.headers, "x-tenant-id": second })).json["error"]).toBe("SCOPE_MISSING");
});

test("a token acts in its tenant and in no other", async () => {
  const second = await makeTenant(db);
  const both = await makePerson(db, app, { tenants: { [mine]: "owner", [second]: "owner" } });
  const token = await makeApiToken(app, both, { scopes: ["READ"], tenantId: mine });
  expect((await get("/api/seen", token.headers)).json["tenantId"]).toBe(mine);
  expect((await get("/api/seen", { ...token.headers, "x-tenant-id": mine })).status).toBe(200);
  expect((await get("/api/seen", { ...token.headers, "x-tenant-id": second })).json["error"]).toBe("TENANT_UNKNOWN");
});

test("an operator may name any tenant, is led to a pod's by its id or VMID, and leaves a trace", async () => {
  const named = await expectAudited(
    db,
    { action: "tenant.visit", tenant_id: theirs, actor_id: operator.userId, detail: { route: "GET /api/seen" } },
    () => get("/api/seen", { ...operator.headers, "x-tenant-id": theirs }),
  );
  expect(named.json).toEqual({ tenantId: theirs, hostnames: ["theirs"] });
  for (const reference of [pod.id, String(pod.vmid)]) {
    expect((await get(`/api/cloud-pods/${reference}/seen`, operator.headers)).json["tenantId"]).toBe(theirs);
  }
  expect((await get(`/api/tasks/${pod.taskId}/seen`, operator.headers)).json["tenantId"]).toBe(theirs);
  expect((await get(`/api/cloud-pods/${pod.id}/seen`, owner.headers)).json["tenantId"]).toBe(mine);
});

test("an operator who names a pod or task that does not exist is told so; a customer is left in his own tenant", async () => {
  for (const [path, error] of [
    [`/api/cloud-pods/${newId()}/seen`, "POD_NOT_FOUND"],
    ["/api/cloud-pods/99999999/seen", "POD_NOT_FOUND"],
    [`/api/tasks/${newId()}/seen`, "TASK_NOT_FOUND"],
  ] as const) {
    expect((await get(path, operator.headers)).json).toMatchObject({ status: 404, error });
    expect((await get(path, owner.headers)).json["tenantId"]).toBe(mine);
  }
});

test("an operator sees no money, an administrator does", async () => {
  const there = { "x-tenant-id": theirs };
  expect((await get("/api/money", { ...operator.headers, ...there })).json["error"]).toBe("SCOPE_MISSING");
  expect((await get("/api/order", { ...operator.headers, ...there })).status).toBe(200);
  expect((await get("/api/money", { ...administrator.headers, ...there })).status).toBe(200);
});

test("platform routes need the role; a token of such a user also the scope for what it does", async () => {
  expect((await get("/api/for/OPERATOR", owner.headers)).json["error"]).toBe("PLATFORM_ROLE_REQUIRED");
  expect((await get("/api/for/OPERATOR", operator.headers)).status).toBe(200);
  expect((await get("/api/for/ADMINISTRATOR", operator.headers)).json["error"]).toBe("PLATFORM_ROLE_REQUIRED");
  expect((await get("/api/for/OPERATOR", administrator.headers)).status).toBe(200);
  const watching = await makeApiToken(app, operator, { scopes: ["READ"], tenantId: mine });
  expect((await get("/api/for/OPERATOR", watching.headers)).status).toBe(200);
  expect((await send(app, "POST", "/api/for/OPERATOR", { headers: watching.headers })).json["details"]).toEqual({
    scope: "WRITE",
  });
  const writing = await makeApiToken(app, administrator, { scopes: ["READ", "WRITE"], tenantId: mine });
  expect((await send(app, "POST", "/api/for/OPERATOR", { headers: writing.headers })).status).toBe(200);
  expect((await send(app, "POST", "/api/for/ADMINISTRATOR", { headers: writing.headers })).json["details"]).toEqual({
    scope: "ADMIN",
  });
});

test("a suspended tenant reads and pays and gets nothing new; a closed one is gone", async () => {
  const tenant = await makeTenant(db);
  const person = await makePerson(db, app, { tenants: { [tenant]: "owner" } });
  await db.system.execute(sql`UPDATE tenants SET status = 'suspended' WHERE id = ${tenant}`);
  expect((await get("/api/seen", person.headers)).status).toBe(200);
  expect((await get("/api/money", person.headers)).status).toBe(200);
  expect((await get("/api/order", person.headers)).json["error"]).toBe("SCOPE_MISSING");
  await db.system.execute(sql`UPDATE tenants SET status = 'closed' WHERE id = ${tenant}`);
  expect((await get("/api/seen", person.headers)).json["error"]).toBe("TENANT_UNKNOWN");
});

test("who has no tenant is told to name one", async () => {
  const person = await makePerson(db, app);
  expect((await get("/api/seen", person.headers)).json["error"]).toBe("TENANT_REQUIRED");
});
