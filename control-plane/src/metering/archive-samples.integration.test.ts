import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sql } from "../platform/sql.ts";
import { withOwnClient } from "./archive-samples.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(async () => {
  await db.close();
});

test("a database that ends the connection between two statements ends the archiving and nothing else", async () => {
  // Without a listener the process would end with the connection's error, and this file of tests with it.
  const archiving = withOwnClient(db.systemUrl, async (client) => {
    const { rows } = await client.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    const ended = new Promise((resolve) => client.once("end", resolve));
    await db.system.execute(sql`SELECT pg_terminate_backend(${rows[0]?.pid})`);
    await ended;
    await client.query("SELECT 1");
  });
  await expect(archiving).rejects.toThrow(/not queryable/u);
});
