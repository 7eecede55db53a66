import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sql } from "../platform/sql.ts";
import { openStorePool, type StorePool } from "./store-pool.ts";

let db: TestDatabase;
let pool: StorePool;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());
beforeEach(() => {
  pool = openStorePool(db.systemUrl, 2);
});
afterEach(() => pool.close());

test("commits wait for the disk, whatever the server's default is", async () => {
  const ask = sql`SELECT current_setting('synchronous_commit') AS mode`;
  expect(await pool.query(ask)).toEqual([{ mode: "off" }]); // the server of the tests
  expect(await pool.transaction(5_000, (tx) => tx.query(ask))).toEqual([{ mode: "on" }]);
});

test("a transaction whose connection dies between two statements fails, and the next one works", async () => {
  const died = pool.transaction(5_000, async (tx) => {
    const [row] = await tx.query<{ pid: number }>(sql`SELECT pg_backend_pid() AS pid`);
    await db.system.query(sql`SELECT pg_terminate_backend(${row?.pid})`);
    // Idle, as while a group is prepared: nobody waits for an answer when the end of the connection is noticed.
    await new Promise((resolve) => setTimeout(resolve, 100));
    return await tx.query(sql`SELECT 1`);
  });
  await expect(died).rejects.toThrow();
  expect(await pool.transaction(5_000, (tx) => tx.query(sql`SELECT 1 AS one`))).toEqual([{ one: 1 }]);
});

test("a transaction that does not end in time is cut, and nothing of it stays", async () => {
  await db.system.execute(sql`CREATE TABLE IF NOT EXISTS scratch (n integer)`);
  const late = pool.transaction(200, async (tx) => {
    await tx.query(sql`INSERT INTO scratch VALUES (1)`);
    await tx.query(sql`SELECT pg_sleep(20)`);
  });
  await expect(late).rejects.toThrow(/within 200 ms/);
  expect(await db.system.query(sql`SELECT FROM scratch`)).toEqual([]);
});

test("a refused COPY leaves the connection usable and names the state", async () => {
  const broken = pool.transaction(5_000, (tx) => tx.copyBinary("nodes (id)", Buffer.from("nonsense")));
  await expect(broken).rejects.toMatchObject({ code: "22P04" });
  expect(await pool.transaction(5_000, (tx) => tx.query(sql`SELECT 1 AS one`))).toEqual([{ one: 1 }]);
});
