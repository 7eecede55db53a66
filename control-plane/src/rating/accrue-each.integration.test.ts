import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sql } from "../platform/sql.ts";
import { accrueEach } from "./accrue-each.ts";
import { accrueMonth } from "./accrual.ts";

const tenants = 110;
const at = new Date("2026-01-05T10:40:00Z");
let db: TestDatabase;
let tenantIds: string[];

/** Tenants with a pod each, in hours that nobody has made yet. */
beforeAll(async () => {
  db = await createTestDatabase();
  await db.system.execute(
    sql`INSERT INTO tenants (id, slug, name) SELECT gen_random_uuid(), 't-' || n, 't' FROM generate_series(1, ${tenants}) AS n`,
  );
  await db.system.execute(sql`
    INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, status, cores, memory_mb, disk_gb, mac)
    SELECT gen_random_uuid(), id, 100000 + row_number() OVER (), 'p', 'p', 'local', 'active', 1, 1024, 10, 'bc:24:11:00:00:01' FROM tenants`);
  await db.system.execute(sql`
    INSERT INTO cloud_pod_allocations (id, tenant_id, pod_id, valid, billing_mode, cores, memory_mb, disk_gb)
    SELECT gen_random_uuid(), tenant_id, id, tstzrange('2026-01-05T08:00:00Z', NULL), 'metered', 1, 1024, 10 FROM cloud_pods`);
  tenantIds = (await db.system.query<{ id: string }>(sql`SELECT id FROM tenants`)).map(({ id }) => id);
});
afterAll(() => db.close());

test("tenants are accrued some at a time, all of them, and the one that cannot be is left out", async () => {
  const sizes: number[] = [];
  const poison = tenantIds[3];
  const { accrued, failed } = await accrueEach(
    {
      db: db.system,
      log: pino({ level: "silent" }),
      async accrue(database, ids, when) {
        sizes.push(ids.length);
        if (poison !== undefined && ids.includes(poison)) throw new Error("statement timeout");
        return await accrueMonth(database, ids, when);
      },
    },
    tenantIds,
    at,
  );
  expect(failed).toBe(1);
  expect(sizes.filter((size) => size > 1)).toEqual([50, 50, 10]);
  expect(new Set([...accrued.keys(), poison])).toEqual(new Set(tenantIds));
  expect(new Set([...accrued.values()].map(({ total }) => total.toString())).size).toBe(1);
});
