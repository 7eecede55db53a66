import { afterAll, beforeAll, expect, test } from "vitest";
import { expectAudited } from "../../../test/support/audit.ts";
import { bearer, makeApiToken, makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { sql } from "../platform/sql.ts";

let db: TestDatabase;
let app: TestApp["app"];
let now = new Date();
let tenantId: string;
let owner: Person;
beforeAll(async () => {
  db = await createTestDatabase();
  app = buildTestApp(db, { clock: () => now }).app;
  tenantId = await makeTenant(db);
  owner = await makePerson(db, app, { tenants: { [tenantId]: "owner" } });
});
afterAll(() => db.close());

const dayMs = 24 * 60 * 60 * 1_000;
const members = () => `/api/tenants/${tenantId}/members`;

test("a token is shown once, stored as a hash, and made with an audit row without it", async () => {
  const made = await expectAudited(
    db,
    {
      action: "api-token.create",
      tenant_id: tenantId,
      actor_kind: "user",
      actor_id: owner.userId,
      target_type: "api-token",
    },
    () =>
      send(app, "POST", "/api/security/tokens", {
        headers: owner.headers,
        body: { name: "ci", scopes: ["READ", "READ", "ADMIN"] },
      }),
    (sent) => [String(sent.json["token"])],
  );
  expect(made.status).toBe(201);
  const secret = String(made.json["token"]);
  expect(secret).toMatch(/^cpt_[0-9a-f]{64}$/);
  expect(made.json).toMatchObject({
    name: "ci",
    prefix: secret.slice(0, 12),
    scopes: ["READ", "ADMIN"],
    allowedCidrs: [],
    revokedAt: null,
  });
  expect(new Date(String(made.json["expiresAt"])).getTime() - now.getTime()).toBe(90 * dayMs);
  const listed = await send(app, "GET", "/api/security/tokens", { headers: owner.headers });
  expect(listed.json["data"]).toEqual([expect.objectContaining({ id: made.json["id"], prefix: secret.slice(0, 12) })]);
  expect(listed.text).not.toContain(secret);
  expect(JSON.stringify(await db.system.query(sql`SELECT * FROM api_tokens`))).not.toContain(secret);
  expect((await send(app, "GET", members(), { headers: bearer(secret) })).status).toBe(200);
});

test("the answer of a repeated request names the token instead of showing it again", async () => {
  const create = () =>
    send(app, "POST", "/api/security/tokens", {
      headers: { ...owner.headers, "idempotency-key": "token-1" },
      body: { name: "once", scopes: ["READ"] },
    });
  const first = await create();
  expect(first.status).toBe(201);
  const second = await create();
  expect([second.status, second.json["error"], second.json["details"]]).toEqual([
    409,
    "IDEMPOTENCY_RESULT_NOT_REPLAYABLE",
    { id: first.json["id"] },
  ]);
  const kept = JSON.stringify(await db.system.query(sql`SELECT * FROM idempotency_keys`));
  expect(kept).not.toContain(String(first.json["token"]));
  expect(await db.system.query(sql`SELECT FROM api_tokens WHERE name = 'once'`)).toHaveLength(1);
});

test("a token has at most the scopes of its user, at its making and at every moment after", async () => {
  const member = await makePerson(db, app, { tenants: { [tenantId]: "admin" } });
  const token = await makeApiToken(app, member, { scopes: ["READ", "ADMIN"] });
  expect((await send(app, "GET", members(), { headers: token.headers })).status).toBe(200);
  await db.system.execute(sql`UPDATE memberships SET role = 'member' WHERE user_id = ${member.userId}`);
  const after = await send(app, "GET", members(), { headers: token.headers });
  expect([after.status, after.json["error"], after.json["details"]]).toEqual([
    403,
    "SCOPE_MISSING",
    { scope: "ADMIN" },
  ]);
  const more = await send(app, "POST", "/api/security/tokens", {
    headers: member.headers,
    body: { name: "more", scopes: ["READ", "BILLING", "ADMIN"] },
  });
  expect([more.status, more.json["error"], more.json["details"]]).toEqual([
    403,
    "SCOPE_NOT_HELD",
    { scopes: ["BILLING", "ADMIN"] },
  ]);
});

test("a token without the scope is refused although its user has it", async () => {
  const token = await makeApiToken(app, owner, { scopes: ["READ"] });
  expect((await send(app, "GET", members(), { headers: token.headers })).json["error"]).toBe("SCOPE_MISSING");
});

test("a token cannot make, see or end tokens", async () => {
  const token = await makeApiToken(app, owner, { scopes: ["READ", "ADMIN", "SECURITY"] });
  for (const [method, path] of [
    ["POST", ""],
    ["GET", ""],
    ["POST", `/${token.id}/revoke`],
  ] as const) {
    const answer = await send(app, method, `/api/security/tokens${path}`, {
      headers: token.headers,
      ...(method === "POST" ? { body: {} } : {}),
    });
    expect(answer.json["error"]).toBe("SESSION_REQUIRED");
  }
});

test("a revoked token is refused by the next request, also among many at once", async () => {
  const token = await makeApiToken(app, owner, { scopes: ["ADMIN"] });
  let revoked = false;
  const afterRevocation: number[] = [];
  const load = Array.from({ length: 8 }, async () => {
    for (let request = 0; request < 25; request++) {
      const wasRevoked = revoked;
      const { status } = await send(app, "GET", members(), { headers: token.headers });
      if (wasRevoked) afterRevocation.push(status);
    }
  });
  const answer = await expectAudited(db, { action: "api-token.revoke", target_id: token.id, tenant_id: tenantId }, () =>
    send(app, "POST", `/api/security/tokens/${token.id}/revoke`, { headers: owner.headers }),
  );
  revoked = true;
  expect(answer.json["revokedAt"]).not.toBeNull();
  await Promise.all(load);
  afterRevocation.push((await send(app, "GET", members(), { headers: token.headers })).status);
  expect(new Set(afterRevocation)).toEqual(new Set([401]));
});

test("a token ends when it says, within the year", async () => {
  const create = (expiresAt: Date) =>
    send(app, "POST", "/api/security/tokens", {
      headers: owner.headers,
      body: { name: "x", scopes: ["ADMIN"], expiresAt },
    });
  for (const expiresAt of [new Date(now.getTime() - 1), new Date(now.getTime() + 367 * dayMs)]) {
    expect((await create(expiresAt)).json).toMatchObject({
      error: "EXPIRY_OUT_OF_RANGE",
      errors: [{ pointer: "/expiresAt" }],
    });
  }
  const made = await create(new Date(now.getTime() + 60_000));
  const headers = bearer(String(made.json["token"]));
  const before = now;
  now = new Date(before.getTime() + 59_999);
  expect((await send(app, "GET", members(), { headers })).status).toBe(200);
  now = new Date(before.getTime() + 60_000);
  expect((await send(app, "GET", members(), { headers })).json["error"]).toBe("CREDENTIAL_EXPIRED");
  now = before;
});

test("a token works only from its networks, and a proxy's word counts only when it is ours", async () => {
  const token = await makeApiToken(app, owner, { scopes: ["ADMIN"], allowedCidrs: ["198.51.100.7/24"] });
  const from = async (address: string, forwarded?: string) =>
    (
      await send(app, "GET", members(), {
        address,
        headers: { ...token.headers, ...(forwarded === undefined ? {} : { "x-forwarded-for": forwarded }) },
      })
    ).status;
  expect(await from("198.51.100.250")).toBe(200);
  expect(await from("203.0.113.1")).toBe(403);
  expect(await from("203.0.113.1", "198.51.100.250")).toBe(403);
  expect(await from("10.0.0.5", "198.51.100.250")).toBe(200);
});

test("a viewer sees his own tokens, one with SECURITY those of the tenant, a stranger none", async () => {
  const viewer = await makePerson(db, app, { tenants: { [tenantId]: "viewer" } });
  const strangersTenant = await makeTenant(db);
  const stranger = await makePerson(db, app, { tenants: { [strangersTenant]: "owner" } });
  const token = await makeApiToken(app, viewer, { scopes: ["READ"] });
  const ids = async (person: Person) => {
    const data = (await send(app, "GET", "/api/security/tokens?limit=200", { headers: person.headers })).json["data"];
    return Array.isArray(data) ? data.map((entry: { id: string }) => entry.id) : [];
  };
  expect(await ids(viewer)).toEqual([token.id]);
  expect(await ids(owner)).toContain(token.id);
  expect(await ids(stranger)).toEqual([]);
  const revoke = (person: Person) =>
    send(app, "POST", `/api/security/tokens/${token.id}/revoke`, { headers: person.headers });
  expect((await revoke(stranger)).json["error"]).toBe("TOKEN_UNKNOWN");
  const colleague = await makePerson(db, app, { tenants: { [tenantId]: "member" } });
  expect((await revoke(colleague)).json["error"]).toBe("TOKEN_UNKNOWN");
  expect((await send(app, "GET", "/api/security/tokens", { headers: token.headers })).json["error"]).toBe(
    "SESSION_REQUIRED",
  );
  expect((await revoke(owner)).status).toBe(200);
});

test.each([
  [{ scopes: ["READ"] }, "/name"],
  [{ name: "x", scopes: [] }, "/scopes"],
  [{ name: "x", scopes: ["ROOT"] }, "/scopes/0"],
  [{ name: "x", scopes: ["READ"], allowedCidrs: ["300.0.0.0/8"] }, "/allowedCidrs/0"],
  [{ name: "x", scopes: ["READ"], extra: 1 }, "/extra"],
])("the wish %j is refused at %s", async (body, pointer) => {
  const answer = await send(app, "POST", "/api/security/tokens", { headers: owner.headers, body });
  expect([answer.status, answer.json["error"]]).toEqual([422, "VALIDATION_FAILED"]);
  expect(answer.json["errors"]).toEqual([expect.objectContaining({ pointer })]);
});
