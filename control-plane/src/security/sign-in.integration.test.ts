import { afterAll, beforeAll, expect, test } from "vitest";
import { expectAudited } from "../../../test/support/audit.ts";
import { bearer, makePerson, makeTenant, send, testPassword } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { sql } from "../platform/sql.ts";
import { pruneIdentity } from "./prune-identity.ts";

let db: TestDatabase;
let app: TestApp["app"];
let now = new Date();
beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, { clock: () => now }).app;
});
afterAll(() => db.close());

const hourMs = 60 * 60 * 1_000;
const profile = "/api/security/me/profile";

async function login(email: string, password: string, address?: string) {
  return await send(app, "POST", "/api/auth/login", {
    body: { email, password },
    ...(address === undefined ? {} : { address }),
  });
}

test("sign-in gives a session, the user's tenants and both cookies; secrets are kept as hashes only", async () => {
  const tenantId = await makeTenant(db, "acme");
  const person = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
  const answer = await expectAudited(
    db,
    { action: "session.create", actor_kind: "user", actor_id: person.userId, target_type: "session" },
    () => login(person.email.toUpperCase(), testPassword),
    (sent) => [String(sent.json["token"]), String(sent.json["csrfToken"]), testPassword],
  );
  expect(answer.status).toBe(200);
  expect(answer.json).toMatchObject({
    token: expect.stringMatching(/^[0-9a-f]{64}$/),
    user: {
      id: person.userId,
      email: person.email,
      platformRole: "USER",
      tenants: [{ id: tenantId, slug: "acme", role: "owner" }],
    },
  });
  const cookies = answer.headers.getSetCookie();
  expect(cookies[0]).toMatch(/^cloudpods_session=[0-9a-f]{64}; HttpOnly; Path=\/; SameSite=Lax; Expires=.*; Secure$/);
  expect(cookies[1]).toMatch(/^cloudpods_csrf=[0-9a-f]{64}; Path=\//);
  const stored = JSON.stringify(
    await db.system.query(sql`SELECT s.*, u.password_hash FROM sessions s JOIN users u ON u.id = s.user_id`),
  );
  expect(stored).not.toContain(String(answer.json["token"]));
  expect(stored).not.toContain(testPassword);
});

test("an unknown user, a wrong password and one who is switched off are refused alike", async () => {
  const person = await makePerson(db, app);
  await db.system.execute(sql`UPDATE users SET is_active = false WHERE id = ${person.userId}`);
  const attempts = [
    await login("nobody@example.test", testPassword),
    await login((await makePerson(db, app)).email, "wrong password!"),
    await login(person.email, testPassword),
  ];
  for (const attempt of attempts) expect([attempt.status, attempt.json["error"]]).toEqual([401, "SIGN_IN_FAILED"]);
  // and the session that he had is over too
  expect((await send(app, "GET", profile, { headers: person.headers })).json["error"]).toBe("CREDENTIAL_INVALID");
});

test("an unknown user costs as much work as a known one", async () => {
  const person = await makePerson(db, app);
  // Processor time of all threads: unlike the clock's it does not depend on what else the machine does.
  const costOf = async (email: string, address: string): Promise<number> => {
    const before = process.cpuUsage();
    await login(email, "wrong password!", address);
    const { user, system } = process.cpuUsage(before);
    return user + system;
  };
  let [known, unknown] = [Infinity, Infinity];
  for (const address of ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]) {
    known = Math.min(known, await costOf(person.email, address));
    unknown = Math.min(unknown, await costOf("nobody-at-all@example.test", address));
  }
  // Without the hash of nobody it would be a tenth.
  expect(unknown).toBeGreaterThan(known * 0.5);
});

test("an attacker is slowed down, at once and in parallel, and the owner elsewhere is not", async () => {
  const person = await makePerson(db, app);
  const attacks = await Promise.all(
    Array.from({ length: 20 }, () => login(person.email, "wrong password!", "198.51.100.9")),
  );
  const statuses = attacks.map((attack) => attack.status);
  expect(statuses.filter((status) => status === 401)).toHaveLength(5);
  const refused = attacks.find((attack) => attack.status === 429);
  expect(refused?.json["error"]).toBe("TOO_MANY_SIGN_INS");
  expect(Number(refused?.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  expect((await login(person.email, testPassword, "198.51.100.9")).status).toBe(429);
  expect((await login(person.email, testPassword, "203.0.113.50")).status).toBe(200);
  // the wait ends, and a success forgets the failures
  now = new Date(now.getTime() + 2_000);
  expect((await login(person.email, testPassword, "198.51.100.9")).status).toBe(200);
  for (let attempt = 0; attempt < 4; attempt++)
    expect((await login(person.email, "wrong password!", "198.51.100.9")).status).toBe(401);
});

test("an attacker with a whole IPv6 network is one attacker", async () => {
  const person = await makePerson(db, app);
  const statuses: number[] = [];
  for (let host = 1; host <= 7; host++)
    statuses.push((await login(person.email, "wrong password!", `2001:db8:1:2::${host}`)).status);
  expect(statuses).toEqual([401, 401, 401, 401, 401, 429, 429]);
  expect((await login(person.email, testPassword, "2001:db8:1:3::1")).status).toBe(200);
});

test("guessing one password of many accounts is slowed down too, but softly", async () => {
  const person = await makePerson(db, app);
  const address = "198.51.100.77";
  await db.system.execute(sql`
    INSERT INTO login_throttles (account, address, failures, updated_at) VALUES ('*', ${address}, 98, ${now})`);
  expect((await login("guess-1@example.test", "wrong password!", address)).status).toBe(401);
  expect((await login("guess-2@example.test", "wrong password!", address)).status).toBe(401);
  const refused = await login(person.email, testPassword, address);
  expect([refused.status, refused.headers.get("retry-after")]).toEqual([429, "1"]);
  const [own] = await db.system.query(
    sql`SELECT FROM login_throttles WHERE account = ${person.email.toLowerCase()} AND address = ${address}`,
  );
  expect(own).toBeUndefined();
  now = new Date(now.getTime() + 60_000);
  expect((await login(person.email, testPassword, address)).status).toBe(200);
  // The success did not wipe out the failures of the others.
  expect((await login("guess-3@example.test", "wrong password!", address)).status).toBe(401);
  expect((await login("guess-4@example.test", "wrong password!", address)).status).toBe(429);
});

test("a session ends when it is idle for 12 hours, and after 30 days however it is used", async () => {
  const start = now;
  const idle = await makePerson(db, app);
  const busy = await makePerson(db, app);
  const use = async (person: typeof idle) => (await send(app, "GET", profile, { headers: person.headers })).json;
  now = new Date(start.getTime() + 12 * hourMs - 1);
  expect(await use(busy)).toHaveProperty("email", busy.email);
  now = new Date(start.getTime() + 12 * hourMs);
  expect(await use(idle)).toHaveProperty("error", "CREDENTIAL_EXPIRED");
  for (let hours = 22; hours < 30 * 24; hours += 11) {
    now = new Date(start.getTime() + hours * hourMs);
    expect(await use(busy)).toHaveProperty("email", busy.email);
  }
  now = new Date(start.getTime() + 30 * 24 * hourMs);
  expect(await use(busy)).toHaveProperty("error", "CREDENTIAL_EXPIRED");
});

test("refresh rotates the secrets: the old token is worth nothing from then on", async () => {
  const person = await makePerson(db, app);
  const fresh = await expectAudited(db, { action: "session.refresh" }, () =>
    send(app, "POST", "/api/auth/refresh", { headers: person.headers }),
  );
  expect(fresh.json).toMatchObject({ sessionId: person.sessionId, token: expect.stringMatching(/^[0-9a-f]{64}$/) });
  expect((await send(app, "GET", profile, { headers: person.headers })).json["error"]).toBe("CREDENTIAL_INVALID");
  expect((await send(app, "GET", profile, { headers: bearer(String(fresh.json["token"])) })).status).toBe(200);
});

test("sign-out ends the session with the next request and clears the cookies", async () => {
  const person = await makePerson(db, app);
  const answer = await expectAudited(db, { action: "session.revoke" }, () =>
    send(app, "POST", "/api/auth/logout", { headers: person.headers }),
  );
  expect([answer.status, answer.text]).toEqual([204, ""]);
  expect(answer.headers.getSetCookie()[0]).toContain("Max-Age=0");
  expect((await send(app, "GET", profile, { headers: person.headers })).status).toBe(401);
});

test("own sessions are listed and ended; another's does not exist", async () => {
  const person = await makePerson(db, app);
  const stranger = await makePerson(db, app);
  const second = (await login(person.email, testPassword)).json;
  const listed = await send(app, "GET", "/api/security/me/sessions", { headers: person.headers });
  expect(listed.json["data"]).toEqual([
    expect.objectContaining({ id: second["sessionId"], current: false }),
    expect.objectContaining({ id: person.sessionId, current: true, address: "203.0.113.7" }),
  ]);
  const page = async (query: string) =>
    (await send(app, "GET", `/api/security/me/sessions?${query}`, { headers: person.headers })).json;
  const first = await page("limit=1");
  expect(first["data"]).toEqual([expect.objectContaining({ id: second["sessionId"] })]);
  expect(await page(`limit=1&cursor=${String(first["nextCursor"])}`)).toEqual({
    data: [expect.objectContaining({ id: person.sessionId, current: true })],
    nextCursor: null,
  });
  const revoke = (id: unknown) =>
    send(app, "POST", `/api/security/me/sessions/${String(id)}/revoke`, { headers: person.headers });
  expect((await revoke(stranger.sessionId)).json["error"]).toBe("SESSION_UNKNOWN");
  expect((await send(app, "GET", profile, { headers: stranger.headers })).status).toBe(200);
  expect((await revoke(second["sessionId"])).status).toBe(204);
  expect((await send(app, "GET", profile, { headers: bearer(String(second["token"])) })).status).toBe(401);
  await login(person.email, testPassword);
  await login(person.email, testPassword);
  const all = await send(app, "POST", "/api/security/me/sessions/revoke-all", { headers: person.headers });
  expect(all.json).toEqual({ revokedSessions: 2 });
  expect((await send(app, "GET", profile, { headers: person.headers })).status).toBe(200);
});

test("a new password needs the old one, ends other sessions and opens from then on", async () => {
  const person = await makePerson(db, app);
  const other = (await login(person.email, testPassword)).json;
  const change = (currentPassword: string, newPassword: string) =>
    send(app, "POST", "/api/auth/password", { headers: person.headers, body: { currentPassword, newPassword } });
  expect((await change("wrong password!", "a new password of mine")).json["error"]).toBe("PASSWORD_WRONG");
  const short = await change(testPassword, "short");
  expect([short.status, short.json["errors"]]).toEqual([422, [expect.objectContaining({ pointer: "/newPassword" })]]);
  const done = await expectAudited(db, { action: "user.change-password" }, () =>
    change(testPassword, "a new password of mine"),
  );
  expect(done.json).toEqual({ revokedSessions: 1 });
  expect((await send(app, "GET", profile, { headers: bearer(String(other["token"])) })).status).toBe(401);
  expect((await send(app, "GET", profile, { headers: person.headers })).status).toBe(200);
  expect((await login(person.email, testPassword)).status).toBe(401);
  expect((await login(person.email, "a new password of mine")).status).toBe(200);
});

test("with the cookie a change needs the CSRF token, reading does not", async () => {
  const person = await makePerson(db, app);
  const cookie = `theme=dark; cloudpods_session=${person.token}`;
  const revokeAll = (headers: Record<string, string>) =>
    send(app, "POST", "/api/security/me/sessions/revoke-all", { headers });
  expect((await send(app, "GET", profile, { headers: { cookie } })).status).toBe(200);
  expect((await revokeAll({ cookie })).json["error"]).toBe("CSRF_TOKEN_INVALID");
  expect((await revokeAll({ cookie, "x-csrf-token": "0".repeat(64) })).status).toBe(403);
  expect((await revokeAll({ cookie, "x-csrf-token": person.csrfToken })).status).toBe(200);
});

test("what has ended is removed in time and not before", async () => {
  const person = await makePerson(db, app);
  await send(app, "POST", "/api/auth/logout", { headers: person.headers });
  const count = async () => (await db.system.query(sql`SELECT FROM sessions WHERE id = ${person.sessionId}`)).length;
  await pruneIdentity(db.system, new Date(now.getTime() + 29 * 24 * hourMs));
  expect(await count()).toBe(1);
  await pruneIdentity(db.system, new Date(now.getTime() + 31 * 24 * hourMs));
  expect(await count()).toBe(0);
});
