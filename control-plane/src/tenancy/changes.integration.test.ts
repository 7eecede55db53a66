import { newId } from "@cloudpods/shared/ids";
import { afterAll, beforeAll, expect, test } from "vitest";
import { expectAudited } from "../../../test/support/audit.ts";
import { makeApiToken, makePerson, makeTenant, send, testPassword, type Person } from "../../../test/support/people.ts";
import { makePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { until } from "../../../test/support/until.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { reserveQuota } from "../quotas/reserve-quota.ts";
import { systemActor } from "../security/actor.ts";
import { commandLine } from "./author.ts";
import { changeTenant } from "./change-tenant.ts";
import { changeUser } from "./change-user.ts";
import { changeMemberRole } from "./members.ts";
import { setPassword } from "./set-password.ts";

let db: TestDatabase;
let app: TestApp["app"];
/** Of another replica. */
let elsewhere: TestApp["app"];
let administrator: Person;
beforeAll(async () => {
  db = await createTestDatabase();
  [app, elsewhere] = [buildTestApp(db).app, buildTestApp(db).app];
  administrator = await makePerson(db, app, { platformRole: "ADMINISTRATOR" });
});
afterAll(() => db.close());

const put = (path: string, body: unknown, person = administrator) =>
  send(app, "PUT", path, { headers: person.headers, body });
const signIn = (email: string, password = testPassword) =>
  send(app, "POST", "/api/auth/login", { body: { email, password } });

/** Runs `second` while `first` has done its work and not yet committed; gives how `second` ended. */
async function whileUncommitted(
  first: (tx: Transaction) => Promise<unknown>,
  second: () => Promise<unknown>,
  meanwhile: () => Promise<unknown> = async () => {},
): Promise<unknown> {
  const [done, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const holding = db.system.transaction(async (tx) => {
    await first(tx);
    done.resolve();
    await gate.promise;
  });
  holding.catch(done.reject);
  await done.promise;
  let settled = false;
  const other = second()
    .catch((error: unknown) => error)
    .finally(() => (settled = true));
  // Of either login: what others do is seen by their locks only.
  const waits = sql`
    SELECT FROM pg_locks w JOIN pg_locks h USING (pid)
     WHERE NOT w.granted AND h.database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
  try {
    await until("the second waits or has ended", async () => settled || (await db.system.query(waits)).length > 0);
    await meanwhile();
  } finally {
    gate.resolve();
  }
  await holding;
  return await other;
}

test("a user who is switched off is out at once on every replica, and comes back only by signing in", async () => {
  const person = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
  const token = await makeApiToken(app, person, { scopes: ["READ"] });
  const off = await expectAudited(
    db,
    {
      action: "user.change",
      actor_id: administrator.userId,
      target_id: person.userId,
      detail: { isActive: false, endedSessions: 1, endedApiTokens: 1 },
    },
    () => put(`/api/users/${person.userId}`, { isActive: false }),
  );
  expect([off.status, off.json["isActive"], off.json["email"]]).toEqual([200, false, person.email]);
  const profile = (headers: Readonly<Record<string, string>>) =>
    send(elsewhere, "GET", "/api/security/me/profile", { headers });
  for (const headers of [person.headers, token.headers]) expect((await profile(headers)).status).toBe(401);
  expect((await signIn(person.email)).json["error"]).toBe("SIGN_IN_FAILED");
  expect((await put(`/api/users/${person.userId}`, { isActive: true })).status).toBe(200);
  for (const headers of [person.headers, token.headers]) expect((await profile(headers)).status).toBe(401);
  expect((await signIn(person.email)).status).toBe(200);
});

test("an administrator changes a platform role and vouches for an address, later too", async () => {
  const person = await makePerson(db, app);
  const path = `/api/users/${person.userId}`;
  expect((await send(app, "GET", "/api/users", { headers: person.headers })).json["error"]).toBe(
    "PLATFORM_ROLE_REQUIRED",
  );
  expect((await put(path, { platformRole: "ADMINISTRATOR", emailVerified: true })).json).toMatchObject({
    platformRole: "ADMINISTRATOR",
    emailVerified: true,
    isActive: true,
  });
  expect((await send(app, "GET", "/api/users", { headers: person.headers })).status).toBe(200);
  expect((await put(path, { platformRole: "USER", emailVerified: false })).json).toMatchObject({
    platformRole: "USER",
    emailVerified: false,
  });
  expect((await put(`/api/users/${newId()}`, { isActive: true })).json).toMatchObject({
    status: 404,
    error: "USER_NOT_FOUND",
  });
  expect((await put(path, { email: "other@example.test" })).status).toBe(422);
});

test("the last active administrator stays one", async () => {
  const path = `/api/users/${administrator.userId}`;
  for (const change of [{ isActive: false }, { platformRole: "OPERATOR" }]) {
    expect((await put(path, change)).json).toMatchObject({ status: 409, error: "LAST_ADMINISTRATOR" });
  }
  const second = await makePerson(db, app, { platformRole: "ADMINISTRATOR" });
  const off = (person: Person) => (tx: Transaction) => changeUser(tx, person.userId, { isActive: false }, commandLine);
  // Of two who switch each other off at the same time one stays.
  const lost = await whileUncommitted(off(second), () => db.system.transaction(off(administrator)));
  expect(lost).toMatchObject({ code: "LAST_ADMINISTRATOR" });
  expect((await put(path, { emailVerified: true })).status).toBe(200);
});

test("a password set meanwhile refuses a sign-in that knew the old one", async () => {
  const person = await makePerson(db, app);
  const next = "staple correct horse";
  const answer = await whileUncommitted(
    (tx) => setPassword(tx, { email: person.email, password: next }, commandLine),
    () => signIn(person.email),
  );
  expect(answer).toMatchObject({ status: 401, json: { error: "SIGN_IN_FAILED" } });
  const open = sql`SELECT FROM sessions WHERE user_id = ${person.userId} AND revoked_at IS NULL`;
  expect(await db.system.query(open)).toEqual([]);
  expect((await signIn(person.email, next)).status).toBe(200);
});

test("a tenant's own settings are changed by those with ADMIN, its status by administrators with a reason", async () => {
  const tenantId = await makeTenant(db);
  const owner = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const member = await makePerson(db, app, { tenants: { [tenantId]: "member" } });
  const path = `/api/tenants/${tenantId}`;
  const wish = { name: "Renamed", billingEmail: "bills@example.test", timezone: "Europe/Berlin", region: "east" };
  const changed = await expectAudited(
    db,
    { action: "tenant.change", tenant_id: tenantId, actor_id: owner.userId, detail: wish },
    () => put(path, wish, owner),
  );
  expect(changed.json).toMatchObject({ id: tenantId, status: "active", ...wish });
  expect((await put(path, { billingEmail: null, region: null }, owner)).json).toMatchObject({
    ...wish,
    billingEmail: null,
    region: null,
  });
  expect((await send(app, "GET", path, { headers: member.headers })).json["name"]).toBe("Renamed");
  expect((await put(path, { name: "Mine" }, member)).json["error"]).toBe("SCOPE_MISSING");
  const suspension = { status: "suspended", reason: "unpaid since March" };
  expect((await put(path, suspension, owner)).json["error"]).toBe("PLATFORM_ROLE_REQUIRED");
  expect((await put(path, { status: "suspended" })).json).toMatchObject({
    status: 422,
    errors: [{ pointer: "/reason" }],
  });
  expect((await put(path, { timezone: "Mars/Olympus" }, owner)).status).toBe(422);
  await expectAudited(db, { action: "tenant.change", actor_id: administrator.userId, detail: suspension }, () =>
    put(path, suspension),
  );
  expect((await put(path, { name: "Mine" }, owner)).json["error"]).toBe("SCOPE_MISSING");
  expect((await send(app, "GET", path, { headers: owner.headers })).json["status"]).toBe("suspended");
});

test("which price list a tenant pays is the administrator's to say, and counts from then on", async () => {
  const tenantId = await makeTenant(db);
  const owner = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const path = `/api/tenants/${tenantId}`;
  await db.system.execute(sql`
    INSERT INTO cloud_pod_pricing (name, currency, cpu_per_hour, memory_gb_per_hour, disk_gb_per_month, network_out_gb, effective_from)
    VALUES ('deal', 'USD', 1, 1, 1, 1, now() - interval '1 day'), ('euro-deal', 'EUR', 1, 1, 1, 1, now() - interval '1 day')`);
  expect((await put(path, { pricingName: "deal" }, owner)).json["error"]).toBe("PLATFORM_ROLE_REQUIRED");
  for (const name of ["nothing", "euro-deal"])
    expect((await put(path, { pricingName: name })).json).toMatchObject({ status: 422, error: "PRICING_UNKNOWN" });
  expect((await put(path, { pricingName: "deal" })).json).toMatchObject({ pricingName: "deal" });
  expect((await send(app, "GET", path, { headers: owner.headers })).json["pricingName"]).toBe("deal");
  expect((await put(path, { pricingName: null })).json).toMatchObject({ pricingName: null });
  const names = await db.system.query<{ name: string | null }>(
    sql`SELECT pricing_name AS name FROM tenant_pricing_names WHERE tenant_id = ${tenantId} ORDER BY lower(valid)`,
  );
  expect(names.map(({ name }) => name)).toEqual([null, "deal", null]);
});

test("a tenant with pods is not closed; a closed one is gone for its members until it is active again", async () => {
  const tenantId = await makeTenant(db);
  const owner = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const pod = await makePod(db, tenantId, { hostname: "alive" });
  const path = `/api/tenants/${tenantId}`;
  const closing = { status: "closed", reason: "they left" };
  expect((await put(path, closing)).json).toMatchObject({
    status: 409,
    error: "TENANT_HAS_PODS",
    details: { pods: 1 },
  });
  await db.system.execute(sql`UPDATE cloud_pods SET status = 'deleted' WHERE id = ${pod.id}`);
  expect((await put(path, closing)).json["status"]).toBe("closed");
  expect((await send(app, "GET", path, { headers: owner.headers })).json["error"]).toBe("TENANT_UNKNOWN");
  expect((await put(path, { status: "active", reason: "they came back" })).status).toBe(200);
  expect((await send(app, "GET", path, { headers: owner.headers })).status).toBe(200);
});

test("of a tenant's end and a pod at the same time one comes to pass", async () => {
  const onePod = { pods: 1, cpuCores: 1, memoryMb: 512, diskGb: 4 };
  const close = (tenantId: string) => (tx: Transaction) =>
    changeTenant(tx, tenantId, { status: "closed", reason: "test" }, commandLine);
  const order = (tenantId: string) => (tx: Transaction) => reserveQuota(tx, tenantId, onePod);
  const closedFirst = await makeTenant(db);
  const refusedOrder = await whileUncommitted(close(closedFirst), () =>
    db.api.transaction(order(closedFirst), { tenantId: closedFirst }),
  );
  expect(refusedOrder).toMatchObject({ code: "TENANT_CLOSED" });
  const orderedFirst = await makeTenant(db);
  const refusedEnd = await whileUncommitted(
    order(orderedFirst),
    () => db.system.transaction(close(orderedFirst)),
    () => makePod(db, orderedFirst, { hostname: "just-ordered" }),
  );
  expect(refusedEnd).toMatchObject({ code: "TENANT_HAS_PODS" });
});

test("a member gets another role and keeps his API tokens, which act with it", async () => {
  const tenantId = await makeTenant(db);
  const owner = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const member = await makePerson(db, app, { tenants: { [tenantId]: "admin" } });
  const token = await makeApiToken(app, member, { scopes: ["READ", "ADMIN"] });
  const path = `/api/tenants/${tenantId}/members`;
  const demoted = await expectAudited(
    db,
    {
      action: "member.change-role",
      tenant_id: tenantId,
      target_id: member.userId,
      detail: { role: "viewer", before: "admin" },
    },
    () => put(`${path}/${member.userId}`, { role: "viewer" }, owner),
  );
  expect(demoted.json).toMatchObject({ userId: member.userId, email: member.email, role: "viewer" });
  expect((await send(app, "GET", path, { headers: token.headers })).json["error"]).toBe("SCOPE_MISSING");
  await put(`${path}/${member.userId}`, { role: "admin" }, owner);
  expect((await send(app, "GET", path, { headers: token.headers })).status).toBe(200);
  // An admin makes no owners, himself least of all, and takes ownership from nobody.
  for (const [userId, role] of [
    [member.userId, "owner"],
    [owner.userId, "viewer"],
  ] as const) {
    expect((await put(`${path}/${userId}`, { role }, member)).json["error"]).toBe("OWNER_REQUIRED");
  }
  expect((await put(`${path}/${newId()}`, { role: "viewer" }, owner)).json["error"]).toBe("MEMBER_UNKNOWN");
});

test("the last owner is not demoted, nor are two who demote each other at the same time", async () => {
  const tenantId = await makeTenant(db);
  const first = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const path = `/api/tenants/${tenantId}/members/${first.userId}`;
  expect((await put(path, { role: "admin" }, first)).json).toMatchObject({ status: 409, error: "LAST_OWNER" });
  expect((await put(path, { role: "owner" }, first)).status).toBe(200);
  const second = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const change = { actor: systemActor("test"), requestId: undefined, tenantId, mayChangeOwners: true };
  const demote = (person: Person) => (tx: Transaction) => changeMemberRole(tx, change, person.userId, "admin");
  const lost = await whileUncommitted(demote(second), () => db.system.transaction(demote(first)));
  expect(lost).toMatchObject({ code: "LAST_OWNER" });
});
