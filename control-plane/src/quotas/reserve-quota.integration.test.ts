import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { insertPods, insertTenants } from "../../../test/support/placement-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sql } from "../platform/sql.ts";
import { compareWithQuota } from "./compare-with-quota.ts";
import { readQuota } from "./quota-row.ts";
import { recountQuotas } from "./recount-quotas.ts";
import { releaseQuota, reserveQuota } from "./reserve-quota.ts";
import { setQuota } from "./set-quota.ts";
import { checkTenantQuota, DEFAULT_TENANT_QUOTA, getTenantQuota, getTenantUsage } from "./tenant-quota.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await createTestDatabase();
});
afterAll(() => db.close());

const one = { pods: 1, cpuCores: 1, memoryMb: 512, diskGb: 5 };
const none = { pods: 0, cpuCores: 0, memoryMb: 0, diskGb: 0 };

async function newTenant(): Promise<string> {
  const [tenantId] = await insertTenants(db.system, 1);
  if (tenantId === undefined) throw new Error("no tenant was made");
  return tenantId;
}

const reserve = (tenantId: string, requested = one) =>
  db.api.transaction((tx) => reserveQuota(tx, tenantId, requested), { tenantId });

describe("reserveQuota", () => {
  it("grants exactly one of 64 orders at once at one below the limit", async () => {
    const tenantId = await newTenant();
    await db.system.transaction((tx) =>
      setQuota(tx, tenantId, { max_pods: 10, max_cpu_cores: 100, max_memory_mb: 100_000, max_disk_gb: 1_000 }),
    );
    for (let used = 0; used < 9; used++) await reserve(tenantId);
    const results = await Promise.allSettled(Array.from({ length: 64 }, () => reserve(tenantId)));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const result of results) {
      if (result.status === "rejected")
        expect(result.reason).toMatchObject({ code: "QUOTA_EXCEEDED", details: { max_pods: 10, current_pods: 10 } });
    }
    expect(await getTenantUsage(db.system, tenantId)).toEqual({ pods: 10, cpuCores: 10, memoryMb: 5_120, diskGb: 50 });
  });

  it("grants exactly one of 64 first orders of a tenant whose limit is one", async () => {
    const tenantId = await newTenant();
    const whole = { pods: 2, cpuCores: 1, memoryMb: 1, diskGb: 1 };
    const results = await Promise.allSettled(Array.from({ length: 64 }, () => reserve(tenantId, whole)));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });

  it("negative control: to check without the lock grants too much", async () => {
    const tenantId = await newTenant();
    await reserve(tenantId);
    const racers = 6;
    let arrived = 0;
    const { promise: allHaveRead, resolve: go } = Promise.withResolvers<void>();
    const naive = () =>
      db.api.transaction(
        async (tx) => {
          const { limits, usage } = await readQuota(tx, tenantId);
          if (!compareWithQuota(limits, usage, one).allowed) throw new Error("refused");
          if (++arrived === racers) go();
          await allHaveRead;
          await tx.execute(
            sql`UPDATE cloud_pod_quotas SET used_cloud_pods = used_cloud_pods + 1 WHERE tenant_id = ${tenantId}`,
          );
        },
        { tenantId },
      );
    await Promise.all(Array.from({ length: racers }, naive));
    expect((await getTenantUsage(db.system, tenantId)).pods).toBeGreaterThan(DEFAULT_TENANT_QUOTA.max_pods);
  });

  it("keeps the default limits when it makes the row", async () => {
    const tenantId = await newTenant();
    expect(await getTenantQuota(db.system, tenantId)).toEqual(DEFAULT_TENANT_QUOTA);
    await reserve(tenantId);
    expect(await readQuota(db.system, tenantId)).toEqual({
      version: 0,
      source: "default",
      limits: DEFAULT_TENANT_QUOTA,
      usage: one,
    });
    await reserve(tenantId);
    await expect(reserve(tenantId)).rejects.toMatchObject({ kind: "quota-exceeded" });
  });

  it("takes the limits of a row without values from the table", async () => {
    const tenantId = await newTenant();
    await db.system.execute(sql`INSERT INTO cloud_pod_quotas (tenant_id) VALUES (${tenantId})`);
    expect(await readQuota(db.system, tenantId)).toMatchObject({
      source: "tenant",
      limits: { max_pods: 5, max_cpu_cores: 8, max_memory_mb: 16_384, max_disk_gb: 100 },
    });
  });

  it("checks only what increases", async () => {
    const tenantId = await newTenant();
    await reserve(tenantId, { pods: 2, cpuCores: 4, memoryMb: 8_192, diskGb: 100 });
    await db.system.transaction((tx) =>
      setQuota(tx, tenantId, { max_pods: 0, max_cpu_cores: 2, max_memory_mb: 1_024, max_disk_gb: 200 }),
    );
    await reserve(tenantId, { ...none, cpuCores: -1, diskGb: 10 });
    await expect(reserve(tenantId, { ...none, cpuCores: -1, memoryMb: 1 })).rejects.toMatchObject({
      code: "QUOTA_EXCEEDED",
    });
    expect(await getTenantUsage(db.system, tenantId)).toEqual({ pods: 2, cpuCores: 3, memoryMb: 8_192, diskGb: 110 });
  });

  it("gives back even more than was counted, down to nought", async () => {
    const tenantId = await newTenant();
    await reserve(tenantId);
    await db.system.transaction((tx) => releaseQuota(tx, tenantId, { ...one, memoryMb: 4_096 }));
    expect(await getTenantUsage(db.system, tenantId)).toEqual(none);
  });

  it("cannot count against another tenant's quota with the tenants' login", async () => {
    const [own, other] = [await newTenant(), await newTenant()];
    await reserve(other);
    await expect(db.api.transaction((tx) => reserveQuota(tx, other, one), { tenantId: own })).rejects.toMatchObject({
      code: "42501",
    });
    expect(await getTenantUsage(db.system, other)).toEqual(one);
  });
});

describe("checkTenantQuota", () => {
  it("says no with the figures and counts nothing", async () => {
    const tenantId = await newTenant();
    expect(await checkTenantQuota(db.system, { tenantId, requested: one })).toEqual({ allowed: true });
    const refused = await checkTenantQuota(db.system, { tenantId, requested: { ...one, cpuCores: 5 } });
    expect(refused).toMatchObject({
      allowed: false,
      details: { max_cpu_cores: 4, current_cpu_cores: 0, requested_cpu_cores: 5 },
    });
    expect(refused.message).toContain("CPU cores");
    expect(await getTenantUsage(db.system, tenantId)).toEqual(none);
  });
});

describe("recountQuotas", () => {
  it("puts wrong counters right and says so in the audit log", async () => {
    const [wrong, missing, right] = [await newTenant(), await newTenant(), await newTenant()];
    const size = { cores: 2, memoryMb: 1_024, diskGb: 10 };
    await insertPods(db.system, [wrong, wrong, missing, right], size);
    await db.system.execute(sql`
      UPDATE cloud_pods SET status = 'suspended' WHERE id = (SELECT id FROM cloud_pods WHERE tenant_id = ${wrong} LIMIT 1)`);
    await reserve(wrong, { ...one, pods: 2 });
    await reserve(right, { pods: 1, cpuCores: 2, memoryMb: 1_024, diskGb: 10 });
    const actual = { pods: 1, cpuCores: 2, memoryMb: 1_024, diskGb: 10 };
    const repaired = (await recountQuotas(db.system)).filter(({ tenantId }) =>
      [wrong, missing, right].includes(tenantId),
    );
    expect(repaired.toSorted((a, b) => b.counted.pods - a.counted.pods)).toEqual([
      { tenantId: wrong, counted: { ...one, pods: 2 }, actual },
      { tenantId: missing, counted: none, actual },
    ]);
    expect(await readQuota(db.system, missing)).toMatchObject({ source: "default", usage: actual });
    const audit = await db.system.query<{ detail: unknown }>(
      sql`SELECT detail FROM audit_log WHERE action = 'quota.repair' AND tenant_id = ${wrong}`,
    );
    expect(audit).toEqual([{ detail: { counted: { ...one, pods: 2 }, actual } }]);
    expect((await recountQuotas(db.system)).filter(({ tenantId }) => tenantId === wrong)).toEqual([]);
  });
});
