import { afterAll, beforeAll, expect, it } from "vitest";
import { makeApiToken, makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { sql } from "../platform/sql.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { registerQuotaRoutes } from "./quotas.http.ts";
import { reserveQuota } from "./reserve-quota.ts";

let db: TestDatabase;
let app: TestApp["app"];
let tenantId: string;
let foreignId: string;
let viewer: Person;
let operator: Person;
let administrator: Person;
beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, {
    register: (routes) => {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerQuotaRoutes(routes);
    },
  }).app;
  [tenantId, foreignId] = [await makeTenant(db), await makeTenant(db)];
  viewer = await makePerson(db, app, { tenants: { [tenantId]: "viewer" } });
  operator = await makePerson(db, app, { platformRole: "OPERATOR" });
  administrator = await makePerson(db, app, { platformRole: "ADMINISTRATOR" });
});
afterAll(() => db.close());

const path = (id: string) => `/api/cloud-pods/tenants/${id}/quota`;
const read = (person: Pick<Person, "headers">, id = tenantId) =>
  send(app, "GET", path(id), { headers: person.headers });
const write = (person: Person, body: unknown, id = tenantId) =>
  send(app, "PUT", path(id), { headers: person.headers, body });

const limits = { pods: 3, cpuCores: 4, memoryMb: 4_096, diskGb: 80 };

it("shows the default limits to members and operators", async () => {
  const expected = {
    tenantId,
    source: "default",
    limits: { pods: 2, cpuCores: 4, memoryMb: 8_192, diskGb: 200 },
    usage: { pods: 0, cpuCores: 0, memoryMb: 0, diskGb: 0 },
    version: 0,
  };
  expect(await read(viewer)).toMatchObject({ status: 200, json: expected });
  expect(await read(operator)).toMatchObject({ status: 200, json: expected });
  expect(await read(await makeApiToken(app, viewer, { scopes: ["READ"], tenantId }))).toMatchObject({
    status: 200,
    json: expected,
  });
});

it("shows one's own without its id, also to an API token of a tenant without pods", async () => {
  const own = (person: Pick<Person, "headers">) =>
    send(app, "GET", "/api/cloud-pods/quota", { headers: person.headers });
  const token = await makeApiToken(app, viewer, { scopes: ["READ"], tenantId });
  for (const person of [viewer, token]) expect(await own(person)).toMatchObject({ status: 200, json: { tenantId } });
  expect(await own(operator)).toMatchObject({ json: { error: "TENANT_REQUIRED" } });
});

it("does not know other tenants", async () => {
  for (const id of [foreignId, "00000000-0000-7000-8000-000000000000"]) {
    expect(await read(viewer, id)).toMatchObject({ status: 404, json: { error: "TENANT_UNKNOWN" } });
  }
  expect((await read(operator, "00000000-0000-7000-8000-000000000000")).status).toBe(404);
  expect((await read(viewer, "not-an-id")).status).toBe(404);
});

it("lets administrators set limits, below what is used too, and go back", async () => {
  await db.system.transaction((tx) =>
    reserveQuota(tx, tenantId, { pods: 2, cpuCores: 2, memoryMb: 2_048, diskGb: 100 }),
  );
  const set = await write(administrator, { source: "tenant", limits });
  expect(set).toMatchObject({ status: 200, json: { source: "tenant", limits, usage: { pods: 2, diskGb: 100 } } });
  expect((await read(viewer)).json).toEqual(set.json);
  expect((await write(administrator, { source: "default" })).json).toMatchObject({
    source: "default",
    limits: { pods: 2 },
    usage: { pods: 2 },
  });
  const audit = await db.system.query<{ detail: unknown; actor_id: string }>(sql`
    SELECT detail, actor_id FROM audit_log WHERE action = 'quota.set' ORDER BY id LIMIT 1`);
  expect(audit).toMatchObject([
    { actor_id: administrator.userId, detail: { source: "tenant", limits: { max_pods: 3 } } },
  ]);
});

it("sets limits only over the version that the administrator saw; use is no new version", async () => {
  const id = await makeTenant(db);
  const decide = (ifMatch: string, pods: number) =>
    send(app, "PUT", path(id), {
      headers: { ...administrator.headers, "if-match": ifMatch },
      body: { source: "tenant", limits: { ...limits, pods } },
    });
  const before = await read(administrator, id);
  await db.system.transaction((tx) => reserveQuota(tx, id, { pods: 1, cpuCores: 1, memoryMb: 512, diskGb: 1 }));
  const set = await decide(before.headers.get("etag") ?? "", 7);
  expect(set).toMatchObject({ status: 200, json: { limits: { pods: 7 }, usage: { pods: 1 }, version: 1 } });
  expect(await decide(before.headers.get("etag") ?? "", 9)).toMatchObject({
    status: 412,
    json: { error: "VERSION_MISMATCH", details: { version: 1 } },
  });
  expect((await read(administrator, id)).json).toEqual(set.json);
  expect((await decide(set.headers.get("etag") ?? "", 9)).json).toMatchObject({ limits: { pods: 9 }, version: 2 });
});

it("refuses others, unknown tenants and senseless limits", async () => {
  expect(await write(operator, { source: "default" })).toMatchObject({
    status: 403,
    json: { error: "PLATFORM_ROLE_REQUIRED" },
  });
  expect((await write(viewer, { source: "default" })).status).toBe(403);
  expect((await write(administrator, { source: "default" }, "00000000-0000-7000-8000-000000000000")).status).toBe(404);
  for (const body of [
    {},
    { source: "tenant" },
    { source: "tenant", limits: { ...limits, pods: -1 } },
    { source: "default", limits },
    { source: "tenant", limits: { pods: 1 } },
  ]) {
    expect(await write(administrator, body)).toMatchObject({ status: 422 });
  }
});
