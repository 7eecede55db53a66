import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sqlState } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { openStorePool, type StorePool } from "./store-pool.ts";
import { mayOpenDay, usageDay, usageDays } from "./usage-days.ts";

const dayMs = 86_400_000;
let db: TestDatabase;
let pool: StorePool;
beforeAll(async () => {
  db = await createTestDatabase();
  pool = openStorePool(db.systemUrl, 8);
});
afterAll(async () => {
  await pool.close();
  await db.close();
});

const partitions = async () =>
  (
    await db.system.query<{ name: string; bound: string }>(sql`
      SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'cloud_pod_usage_samples'::regclass ORDER BY 1`)
  ).map(({ name, bound }) => `${name} ${bound}`);

test("several who need the same days at once make each of them once", async () => {
  const nowMs = Date.UTC(2026, 1, 27, 12);
  await Promise.all(Array.from({ length: 8 }, () => usageDays(pool).makeAhead(nowMs)));
  expect((await partitions()).map((line) => line.split(" ")[0])).toEqual(
    ["20260226", "20260227", "20260228", "20260301", "20260302"].map((day) => `cloud_pod_usage_samples_${day}`),
  );
});

test("a partition begins one millisecond after midnight, and there is none for the rest", async () => {
  const lines = await partitions();
  expect(lines[0]).toContain("FROM ('2026-02-26 00:00:00.001+00') TO ('2026-02-27 00:00:00.001+00')");
  expect(lines.join()).not.toContain("DEFAULT");
  const midnight = Date.UTC(2026, 1, 27);
  expect(usageDay(midnight - 1)).toBe(usageDay(midnight) - 1);
});

test("making a day waits for no reader, which creating it in place would", async () => {
  await db.system.transaction(async (reader) => {
    await reader.query(sql`SELECT count(*) FROM cloud_pod_usage_samples`);
    await usageDays(pool).make([usageDay(Date.UTC(2026, 5, 1))]);
    const inPlace = pool.transaction(5_000, async (tx) => {
      await tx.query(sql`SET LOCAL lock_timeout = '200ms'`);
      await tx.query(
        sql`CREATE TABLE in_place PARTITION OF cloud_pod_usage_samples FOR VALUES FROM ('2026-07-01') TO ('2026-07-02')`,
      );
    });
    await expect(inPlace).rejects.toSatisfy((error) => sqlState(error) === "55P03");
  });
  expect((await partitions()).at(-1)).toContain("cloud_pod_usage_samples_20260601");
});

test("a day may be opened until its raw samples would be dropped", () => {
  const day = usageDay(Date.UTC(2026, 0, 10));
  const endMs = (day + 1) * dayMs;
  expect(mayOpenDay(day, endMs + 72 * 3_600_000 - 1)).toBe(true);
  expect(mayOpenDay(day, endMs + 72 * 3_600_000)).toBe(false);
});
