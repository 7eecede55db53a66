import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sql } from "./sql.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

test("a transaction of a tenant sees its own rows and none without a tenant", async () => {
  const [mine, other] = ["019a0000-0000-7000-8000-000000000001", "019a0000-0000-7000-8000-000000000002"];
  await db.system.execute(
    sql`INSERT INTO tenants (id, slug, name) VALUES (${mine}, 'mine', 'Mine'), (${other}, 'other', 'Other')`,
  );
  const seen = await db.api.transaction((tx) => tx.query<{ slug: string }>(sql`SELECT slug FROM tenants`), {
    tenantId: mine,
  });
  expect(seen).toEqual([{ slug: "mine" }]);
  expect(await db.api.query(sql`SELECT FROM tenants`)).toEqual([]);
  // negative control: the owner, whom the policy does not bind, sees both
  expect(await db.system.query(sql`SELECT FROM tenants`)).toHaveLength(2);
});

test("a transaction that throws leaves nothing", async () => {
  const attempt = db.system.transaction(async (tx) => {
    await tx.execute(sql`INSERT INTO clusters (id, name) VALUES (gen_random_uuid(), 'half')`);
    throw new Error("stop");
  });
  await expect(attempt).rejects.toThrow("stop");
  expect(await db.system.query(sql`SELECT FROM clusters`)).toEqual([]);
});
