import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { makePerson, makeTenant, type Person } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import {
  batchOf,
  payloadOf,
  sampleOf,
  seedFleet,
  type FleetNode,
  type FleetPod,
} from "../../../test/support/telemetry-fleet.ts";
import { sql } from "../platform/sql.ts";
import { hostingCache } from "../samples-intake/hosting.ts";
import { openStorePool, type StorePool } from "../samples-intake/store-pool.ts";
import { storeMessages } from "../samples-intake/store-messages.ts";
import { usageDays } from "../samples-intake/usage-days.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { registerMeteringRoutes } from "./metering.http.ts";

let db: TestDatabase;
let pool: StorePool;
let app: TestApp["app"];
let node: FleetNode;
let pod: FleetPod;
let owner: Person;

beforeAll(async () => {
  db = await createTestDatabase();
  pool = openStorePool(db.systemUrl, 2);
  app = buildTestApp(db, {
    register(routes) {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerMeteringRoutes(routes);
    },
  }).app;
});
afterAll(async () => {
  await pool.close();
  await db.close();
});
beforeEach(async () => {
  [node] = (await seedFleet(db.system, { nodes: 1, podsPerNode: 2 })) as [FleetNode];
  pod = node.pods[0] ?? expect.fail("no pod");
  owner = await makePerson(db, app, { tenants: { [pod.tenantId]: "owner" } });
});

async function meter(...minutesAgo: number[]): Promise<number> {
  const now = Date.now();
  const samples = minutesAgo.map((minutes) =>
    sampleOf(pod, now - minutes * 60_000, {
      cpuUsageUs: 60_000_000n,
      memoryByteMs: 512n * 2n ** 20n * 60_000n,
      diskByteMs: 5n * 2n ** 30n * 60_000n,
    }),
  );
  const payload = payloadOf(batchOf(node, newId(), { from: 1 }, now, { samples }));
  const context = { pool, hosting: hostingCache(pool, Date.now), days: usageDays(pool), clock: Date.now };
  await storeMessages(context, [{ nodeId: node.nodeId, payload, receivedAtMs: now }]);
  return now;
}

async function usage(
  person: Person,
  reference: string | number = pod.podId,
): Promise<{ status: number; body: unknown }> {
  const answer = await app.request(`/api/cloud-pods/${reference}/usage/realtime`, { headers: { ...person.headers } });
  return { status: answer.status, body: await answer.json() };
}

describe("GET /api/cloud-pods/:pod/usage/realtime", () => {
  test("shows what the host measured last", async () => {
    const now = await meter(0, 1);
    const expected = {
      status: "live",
      lastUpdate: new Date(now).toISOString(),
      current: {
        cpuPercent: 50,
        memoryUsedMb: 512,
        memoryTotalMb: 1024,
        memoryPercent: 50,
        diskUsedGb: 5,
        diskTotalGb: 20,
        diskPercent: 25,
      },
      averages: { cpuPercent5min: 50 },
    };
    expect(await usage(owner)).toEqual({ status: 200, body: expected });
    expect(await usage(owner, pod.vmid)).toEqual({ status: 200, body: expected });
  });

  test("says so when the last five minutes hold nothing", async () => {
    await meter(6, 7);
    expect(await usage(owner)).toEqual({ status: 200, body: { status: "no_data" } });
  });

  test("does not know another tenant's pod", async () => {
    await meter(0);
    const stranger = await makePerson(db, app, { tenants: { [await makeTenant(db)]: "owner" } });
    expect(await usage(stranger)).toMatchObject({ status: 404, body: { error: "POD_NOT_FOUND" } });
  });

  test("the tenants' login sees samples through the view alone, and only its own", async () => {
    await meter(0);
    const seen = (tenantId: string) =>
      db.api.transaction((tx) => tx.query(sql`SELECT FROM tenant_usage_samples WHERE pod_id = ${pod.podId}`), {
        tenantId,
      });
    expect(await seen(pod.tenantId)).toHaveLength(1);
    expect(await seen(newId())).toHaveLength(0);
    await expect(db.api.query(sql`SELECT FROM cloud_pod_usage_samples`)).rejects.toThrow("permission denied");
  });

  test("reads the pod's own rows of the last days, not the whole history", async () => {
    await meter(0);
    const plan = await db.api.transaction(
      (tx) =>
        tx.query<{ "QUERY PLAN": string }>(
          sql`EXPLAIN SELECT * FROM tenant_usage_samples WHERE pod_id = ${pod.podId} AND sample_time > now() - interval '5 minutes'`,
        ),
      { tenantId: pod.tenantId },
    );
    const text = plan.map((line) => line["QUERY PLAN"]).join("\n");
    expect(text).toMatch(/Subplans Removed|Index Cond/);
    expect(text).not.toMatch(/Seq Scan on cloud_pod_usage_samples/);
  });
});
