import { afterAll, beforeAll, expect, test } from "vitest";
import { makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildWholeTestApp, type WholeTestApp } from "../../../test/support/whole-app.ts";
import { sql } from "../platform/sql.ts";

let db: TestDatabase;
let whole: WholeTestApp;
let tenantId: string;
let owner: Person;

beforeAll(async () => {
  db = await createTestDatabase();
  whole = await buildWholeTestApp(db);
  tenantId = await makeTenant(db);
  owner = await makePerson(db, whole.app, { tenants: { [tenantId]: "owner" } });
});
afterAll(async () => {
  await whole.close();
  await db.close();
});

const webhooks = (method: "GET" | "PUT", body?: unknown, headers: Record<string, string> = {}) =>
  send(whole.app, method, `/api/tenants/${tenantId}/webhooks`, { headers: { ...owner.headers, ...headers }, body });

test("the secret is shown when it is made, and never again", async () => {
  expect((await webhooks("GET")).json).toEqual({ url: null, secretMadeAt: null, version: 0 });
  const made = await webhooks("PUT", { url: "https://hooks.example.com/a" });
  expect(made.status).toBe(200);
  expect(made.json["secret"]).toMatch(/^whsec_[0-9a-f]{64}$/);
  const moved = await webhooks("PUT", { url: "https://hooks.example.com/b" });
  expect(moved.json).toMatchObject({ url: "https://hooks.example.com/b", version: 2 });
  expect(moved.json).not.toHaveProperty("secret");
  const renewed = await webhooks("PUT", { url: null, newSecret: true });
  expect(renewed.json["secret"]).not.toBe(made.json["secret"]);
  expect((await webhooks("GET")).text).not.toContain("whsec_");
  const audit = await db.system.query<{ detail: unknown }>(
    sql`SELECT detail FROM audit_log WHERE action = 'webhook.set' AND tenant_id = ${tenantId}`,
  );
  expect(audit).toHaveLength(3);
  expect(JSON.stringify(audit)).not.toContain("whsec_");
});

test("a stale version is refused", async () => {
  const { headers } = await webhooks("GET");
  expect((await webhooks("PUT", { url: null }, { "if-match": headers.get("etag") ?? "" })).status).toBe(200);
  const stale = await webhooks("PUT", { url: null }, { "if-match": headers.get("etag") ?? "" });
  expect([stale.status, stale.json["error"]]).toEqual([412, "VERSION_MISMATCH"]);
});

test.each([
  "https://127.0.0.1/",
  "https://10.1.2.3/",
  "https://169.254.169.254/latest",
  "https://[::1]/",
  "https://[::ffff:192.168.0.1]/",
  "http://hooks.example.com/",
  "https://user:password@hooks.example.com/",
  "nonsense",
])("%s is no target", async (url) => {
  const refused = await webhooks("PUT", { url });
  expect([refused.status, refused.json["error"]]).toEqual([422, "WEBHOOK_TARGET_REFUSED"]);
});
