import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { makeTenant } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { openDatabase } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { assertLoginsAreSafe } from "./assert-logins-are-safe.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
  await makeTenant(db);
});
afterAll(() => db.close());

test("the two logins of the migrations are safe, with rows there", async () => {
  await expect(assertLoginsAreSafe(db.system, db.api)).resolves.toBeUndefined();
});

test("the owner's login may not serve tenants", async () => {
  await expect(assertLoginsAreSafe(db.system, db.system)).rejects.toThrow(
    /it is the owner's login .* it owns \d+ relations.*sees rows of tenants/s,
  );
});

test("a superuser may not serve tenants", async () => {
  const database = new URL(db.apiUrl).pathname;
  const url = new URL(inject("postgres").superuserUrl);
  url.pathname = database;
  const superuser = openDatabase({ url: url.toString(), applicationName: "test", connectionsMax: 2 });
  try {
    await expect(assertLoginsAreSafe(db.system, superuser)).rejects.toThrow(/it is a superuser; it has BYPASSRLS/);
  } finally {
    await superuser.close();
  }
});

test("a table of tenants that lost its row-level security is noticed", async () => {
  await db.system.execute(sql`ALTER TABLE memberships DISABLE ROW LEVEL SECURITY`);
  await expect(assertLoginsAreSafe(db.system, db.api)).rejects.toThrow("memberships has no row-level security");
  await db.system.execute(sql`ALTER TABLE memberships ENABLE ROW LEVEL SECURITY`);
});

test("a policy that lets rows through without a tenant is noticed", async () => {
  await db.system.execute(sql`CREATE POLICY careless ON tenants TO cloudpods_api USING (app_tenant_id() IS NULL)`);
  await expect(assertLoginsAreSafe(db.system, db.api)).rejects.toThrow("without a tenant it sees rows of tenants");
  await db.system.execute(sql`DROP POLICY careless ON tenants`);
});

test("a database without its migrations is not served", async () => {
  await db.system.execute(sql`REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM cloudpods_api`);
  await expect(assertLoginsAreSafe(db.system, db.api)).rejects.toThrow("it may read no table of tenants");
});
