import { afterAll, beforeAll, expect, test } from "vitest";
import { expectAudited } from "../../../test/support/audit.ts";
import { makeApiToken, makePerson, makeTenant, send, testPassword, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { until } from "../../../test/support/until.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { createUser } from "./create-user.ts";
import { removeMember } from "./members.ts";

let db: TestDatabase;
let app: TestApp["app"];
let administrator: Person;
beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db).app;
  administrator = await makePerson(db, app, { platformRole: "ADMINISTRATOR" });
});
afterAll(() => db.close());

const post = (path: string, body: unknown, person = administrator) =>
  send(app, "POST", path, { headers: person.headers, body });

test("the first administrator is made without anyone being signed in, and can sign in", async () => {
  const wish = { email: "root@example.test", password: testPassword, platformRole: "ADMINISTRATOR" } as const;
  const user = await expectAudited(
    db,
    {
      action: "user.create",
      actor_kind: "system",
      actor_id: "command-line",
      detail: { email: wish.email, platformRole: "ADMINISTRATOR" },
    },
    () => db.system.transaction((tx) => createUser(tx, wish)),
    () => [testPassword],
  );
  expect(user).toMatchObject({ email: wish.email, platformRole: "ADMINISTRATOR", isActive: true });
  expect((await post("/api/auth/login", { email: wish.email, password: testPassword })).status).toBe(200);
});

test.each([
  [{ email: "no-address", password: testPassword }, "/email"],
  [{ email: "a@example.test", password: "short" }, "/password"],
])("a user like %j is refused at %s", async (wish, pointer) => {
  const refused = db.system.transaction((tx) => createUser(tx, wish));
  await expect(refused).rejects.toMatchObject({ kind: "invalid", code: "USER_INVALID", errors: [{ pointer }] });
});

test("an administrator makes users; an address is taken whatever its case", async () => {
  const made = await expectAudited(
    db,
    { action: "user.create", actor_kind: "user", actor_id: administrator.userId },
    () => post("/api/users", { email: "Ada@example.test", password: testPassword, name: "Ada" }),
  );
  expect([made.status, made.json["platformRole"]]).toEqual([201, "USER"]);
  expect(made.text).not.toMatch(/password|argon2/);
  const again = await post("/api/users", { email: "ada@EXAMPLE.test", password: testPassword });
  expect([again.status, again.json["error"]]).toEqual([409, "EMAIL_TAKEN"]);
  const listed = await send(app, "GET", "/api/users?limit=200", { headers: administrator.headers });
  expect(listed.json["data"]).toContainEqual(expect.objectContaining({ email: "Ada@example.test" }));
  expect(listed.text).not.toMatch(/password|argon2/);
});

test("an administrator makes a tenant with its owner; slugs are unique", async () => {
  const owner = await makePerson(db, app);
  const made = await expectAudited(
    db,
    { action: "tenant.create", actor_id: administrator.userId, target_type: "tenant" },
    () =>
      post("/api/tenants", {
        slug: "acme",
        name: "Acme",
        ownerEmail: owner.email,
        currency: "EUR",
        timezone: "Europe/Berlin",
      }),
  );
  expect(made.json).toMatchObject({ slug: "acme", status: "active", currency: "EUR", timezone: "Europe/Berlin" });
  const profile = await send(app, "GET", "/api/security/me/profile", { headers: owner.headers });
  expect(profile.json["tenants"]).toEqual([{ id: made.json["id"], slug: "acme", name: "Acme", role: "owner" }]);
  expect((await post("/api/tenants", { slug: "acme", name: "Other" })).json).toMatchObject({
    status: 409,
    error: "SLUG_TAKEN",
  });
  expect(
    (await post("/api/tenants", { slug: "other", name: "Other", ownerEmail: "nobody@example.test" })).json,
  ).toMatchObject({ status: 422, error: "USER_UNKNOWN" });
  expect(await db.system.query(sql`SELECT FROM tenants WHERE slug = 'other'`)).toEqual([]);
});

test("operators find tenants by name; what these pay is not theirs to see, and customers see no list", async () => {
  const made = await post("/api/tenants", { slug: "findable", name: "Findable", billingEmail: "bills@example.test" });
  const { id } = made.json;
  const operator = await makePerson(db, app, { platformRole: "OPERATOR" });
  const listed = await send(app, "GET", "/api/tenants?limit=200", { headers: operator.headers });
  expect(listed.json["data"]).toContainEqual({ id, slug: "findable", name: "Findable", status: "active" });
  expect(listed.text).not.toMatch(/bills@example.test|currency|pricingName/);
  const whole = await send(app, "GET", "/api/tenants?limit=200", { headers: administrator.headers });
  expect(whole.json["data"]).toContainEqual(expect.objectContaining({ id, billingEmail: "bills@example.test" }));
  const customer = await makePerson(db, app);
  expect((await send(app, "GET", "/api/tenants", { headers: customer.headers })).status).toBe(403);
});

test.each([
  [{ slug: "No Label", name: "x" }, "/slug"],
  [{ slug: "ok", name: " " }, "/name"],
  [{ slug: "ok", name: "x", timezone: "Mars/Olympus" }, "/timezone"],
  [{ slug: "ok", name: "x", currency: "euro" }, "/currency"],
])("a tenant like %j is refused at %s", async (wish, pointer) => {
  const answer = await post("/api/tenants", wish);
  expect([answer.status, answer.json["errors"]]).toEqual([422, [expect.objectContaining({ pointer })]]);
});

test("lists walk by cursor over every tenant once", async () => {
  for (let made = 0; made < 5; made++) await makeTenant(db);
  const seen: string[] = [];
  let cursor = "";
  do {
    const page = await send(app, "GET", `/api/tenants?limit=2${cursor}`, { headers: administrator.headers });
    const { data, nextCursor } = page.json as { data: { id: string }[]; nextCursor: string | null };
    seen.push(...data.map((tenant) => tenant.id));
    cursor = nextCursor === null ? "" : `&cursor=${nextCursor}`;
  } while (cursor !== "");
  const all = await db.system.query<{ id: string }>(sql`SELECT id FROM tenants ORDER BY id DESC`);
  expect(seen).toEqual(all.map((row) => row.id));
  const forged = Buffer.from(JSON.stringify(["x"])).toString("base64url");
  expect(
    (await send(app, "GET", `/api/tenants?cursor=${forged}`, { headers: administrator.headers })).json["error"],
  ).toBe("CURSOR_INVALID");
});

test("members are added, listed and removed by those with ADMIN; removal ends their tokens here", async () => {
  const tenantId = await makeTenant(db);
  const owner = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const newcomer = await makePerson(db, app);
  const path = `/api/tenants/${tenantId}/members`;
  const added = await expectAudited(
    db,
    {
      action: "member.add",
      tenant_id: tenantId,
      actor_id: owner.userId,
      target_id: newcomer.userId,
      detail: { role: "member" },
    },
    () => post(path, { email: newcomer.email, role: "member" }, owner),
  );
  expect([added.status, added.json["role"]]).toEqual([201, "member"]);
  expect((await post(path, { email: newcomer.email, role: "viewer" }, owner)).json["error"]).toBe("MEMBER_EXISTS");
  expect((await post(path, { email: "nobody@example.test", role: "viewer" }, owner)).json["error"]).toBe(
    "USER_UNKNOWN",
  );
  expect((await send(app, "GET", path, { headers: newcomer.headers })).json["error"]).toBe("SCOPE_MISSING");
  const listed = await send(app, "GET", path, { headers: owner.headers });
  expect(listed.json["data"]).toEqual([
    expect.objectContaining({ userId: owner.userId, role: "owner" }),
    expect.objectContaining({ userId: newcomer.userId, role: "member" }),
  ]);
  const token = await makeApiToken(app, newcomer, { scopes: ["READ"] });
  const removed = await expectAudited(db, { action: "member.remove", target_id: newcomer.userId }, () =>
    send(app, "DELETE", `${path}/${newcomer.userId}`, { headers: owner.headers }),
  );
  expect(removed.status).toBe(204);
  expect((await send(app, "GET", path, { headers: token.headers })).json["error"]).toBe("CREDENTIAL_INVALID");
  expect((await send(app, "GET", path, { headers: newcomer.headers })).json["error"]).toBe("TENANT_UNKNOWN");
  expect((await send(app, "DELETE", `${path}/${newcomer.userId}`, { headers: owner.headers })).json["error"]).toBe(
    "MEMBER_UNKNOWN",
  );
});

test("an admin cannot make or remove owners", async () => {
  const tenantId = await makeTenant(db);
  const owner = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const admin = await makePerson(db, app, { tenants: { [tenantId]: "admin" } });
  const friend = await makePerson(db, app);
  const path = `/api/tenants/${tenantId}/members`;
  expect((await post(path, { email: friend.email, role: "owner" }, admin)).json["error"]).toBe("OWNER_REQUIRED");
  expect((await send(app, "DELETE", `${path}/${owner.userId}`, { headers: admin.headers })).json["error"]).toBe(
    "OWNER_REQUIRED",
  );
});

test("the last owner stays", async () => {
  const tenantId = await makeTenant(db);
  const owner = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const path = `/api/tenants/${tenantId}/members/${owner.userId}`;
  const answer = await send(app, "DELETE", path, { headers: owner.headers });
  expect([answer.status, answer.json["error"]]).toEqual([409, "LAST_OWNER"]);
});

test("of two owners who remove each other at the same time one stays", async () => {
  const tenantId = await makeTenant(db);
  const [first, second] = [
    await makePerson(db, app, { tenants: { [tenantId]: "owner" } }),
    await makePerson(db, app, { tenants: { [tenantId]: "owner" } }),
  ];
  const change = { actor: systemActor("test"), requestId: undefined, tenantId, mayChangeOwners: true };
  const gate = Promise.withResolvers<void>();
  const removed = Promise.withResolvers<void>();
  const removing = db.api.transaction(
    async (tx) => {
      await removeMember(tx, change, second.userId);
      removed.resolve();
      await gate.promise;
    },
    { tenantId },
  );
  await removed.promise;
  let settled = false;
  const other = db.api.transaction((tx) => removeMember(tx, change, first.userId), { tenantId });
  other.catch(() => {}).finally(() => (settled = true));
  const waits = sql`SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
  await until("the second removal", async () => settled || (await db.system.query(waits)).length > 0);
  gate.resolve();
  await removing;
  await expect(other).rejects.toMatchObject({ code: "LAST_OWNER" });
});
