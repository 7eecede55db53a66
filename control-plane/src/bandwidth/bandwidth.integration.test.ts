import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { accrueAsTold } from "../../../test/support/accrued.ts";
import { bellOf, untilRung } from "../../../test/support/bell.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { aTenant, anOnlineNode } from "../../../test/support/rows.ts";
import { standingStill } from "../../../test/support/standing-still.ts";
import { startScriptedHost, type ScriptedEnd, type ScriptedHost } from "../../../test/support/scripted-host.ts";
import { startTestWorker } from "../../../test/support/test-worker.ts";
import { sql } from "../platform/sql.ts";
import { changePower, resumePod, suspendPod } from "../pods/change-power.ts";
import { orderPod } from "../pods/order-pod.ts";
import { findPod, type Pod } from "../pods/pod.ts";
import { createFleetView } from "../scheduling/fleet-view.ts";
import { systemActor } from "../security/actor.ts";
import type { TaskWorker } from "../tasks/task-worker.ts";
import { bytesOfGb } from "./decide-bandwidth.ts";
import { evaluateBandwidth, type BandwidthReport } from "./evaluate-bandwidth.ts";

const fleet = createFleetView();
const log = pino({ level: "silent" });
let db: TestDatabase;
let tenantId: string;
let host: ScriptedHost;
let worker: TaskWorker;
let used: Record<string, bigint>;
/** How long a pass needs to accrue. */
let slowMs: number;
let script: () => ScriptedEnd | undefined;

beforeAll(async () => {
  db = await createTestDatabase();
  await anOnlineNode(db.system);
});
afterAll(() => db.close());
beforeEach(async () => {
  await db.system.execute(sql`UPDATE cloud_pods SET status = 'deleted'`);
  tenantId = (await aTenant(db.system)).id;
  await db.system.execute(sql`UPDATE tenants SET billing_email = 'pay@example.test' WHERE id = ${tenantId}`);
  await db.system.execute(
    sql`UPDATE cloud_pod_plans SET overage_policy = 'throttle', bandwidth_gb = 50 WHERE code = 'CLOUD_POD_STUDENT'`,
  );
  used = {};
  slowMs = 0;
  script = () => undefined;
  host = startScriptedHost(db.system, () => script());
  worker = startTestWorker(db.system, fleet);
});
afterEach(async () => {
  await worker.stop();
  await host.stop();
});

const evaluate = (now = new Date(), database = db.system): Promise<BandwidthReport> => {
  const told = accrueAsTold(() => ({ outBytes: used }));
  const accrue: typeof told = async (...asked) => {
    await new Promise((resolve) => setTimeout(resolve, slowMs));
    return await told(...asked);
  };
  return evaluateBandwidth({ db: database, log, hints: { workQueued: () => bellOf(db.system).ring() }, accrue }, now);
};
const quiet = { notices: 0, throttled: 0, freed: 0, failed: 0 };
const nextMonth = (): Date => {
  const now = new Date();
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1, 0, 0, 1));
};
const who = () => ({ tenantId, actor: systemActor("test"), requestId: newId() });
const podNow = (id: string): Promise<Pod> => db.api.transaction((tx) => findPod(tx, tenantId, id), { tenantId });
const rateOnHost = (pod: Pod): number | undefined => host.containers.get(pod.vmid)?.rateLimitKibPerSecond;

async function settled(): Promise<void> {
  await untilRung("the end of all work", db.system, async () => {
    const open = await db.system.query(
      sql`SELECT FROM cloud_pod_provisioning_tasks WHERE tenant_id = ${tenantId} AND finished_at IS NULL`,
    );
    return open.length === 0;
  });
}

async function aPod(planCode = "CLOUD_POD_STUDENT"): Promise<Pod> {
  const { pod } = await db.api.transaction(
    (tx) =>
      orderPod(
        tx,
        { ...who(), defaultRegion: "local", fleet, isEmailVerified: () => Promise.resolve(true) },
        { hostname: "shop", planCode },
      ),
    { tenantId },
  );
  await settled();
  return await podNow(pod.id);
}

async function told(): Promise<string[]> {
  const rows = await db.system.query<{ key: string }>(
    sql`SELECT dedupe_key AS key FROM notifications WHERE tenant_id = ${tenantId} ORDER BY id`,
  );
  return rows.map(({ key }) => key.split(":").at(-1) ?? "");
}

test("a pod that has come to a larger allowance since its traffic was read is not made slow", async () => {
  const pod = await aPod();
  used = { [pod.id]: bytesOfGb(50) };
  // The notices come before.
  const late = standingStill(db.system, 2, () =>
    db.system.execute(sql`UPDATE cloud_pod_plans SET bandwidth_gb = 100 WHERE code = 'CLOUD_POD_STUDENT'`),
  );
  expect(await evaluate(new Date(), late)).toEqual({ ...quiet, notices: 2 });
  await settled();
  expect(await podNow(pod.id)).toMatchObject({ rateLimitKibPerSecond: pod.rateLimitKibPerSecond });
});

test("80 and 100 % are told once each, and beyond the allowance the pod's network is slow on its host", async () => {
  const pod = await aPod();
  used = { [pod.id]: bytesOfGb(40) - 1n };
  expect(await evaluate()).toEqual(quiet);
  used = { [pod.id]: bytesOfGb(40) };
  const reports = await Promise.all([evaluate(), evaluate()]);
  expect(reports.reduce((sum, { notices }) => sum + notices, 0)).toBe(1);
  expect(rateOnHost(pod)).toBe(0);
  used = { [pod.id]: bytesOfGb(50) };
  expect(await evaluate()).toEqual({ ...quiet, notices: 1, throttled: 1 });
  expect(await evaluate()).toEqual(quiet);
  await settled();
  expect(rateOnHost(pod)).toBe(128);
  expect((await podNow(pod.id)).rateLimitKibPerSecond).toBe(128);
  expect(await told()).toEqual(["80", "100"]);
});

test.each([0, 64, 128, 5_000])("the turn of the month gives a rate of %i KiB/s back exactly", async (rate) => {
  const pod = await aPod();
  await db.system.execute(sql`UPDATE cloud_pods SET rate_limit_kib_per_second = ${rate} WHERE id = ${pod.id}`);
  used = { [pod.id]: bytesOfGb(51) };
  await evaluate();
  await settled();
  expect(rateOnHost(pod)).toBe(rate === 64 ? 64 : 128);
  used = {};
  expect(await evaluate(nextMonth())).toEqual({ ...quiet, freed: 1 });
  expect(await evaluate(nextMonth())).toEqual(quiet);
  await settled();
  expect(rateOnHost(pod)).toBe(rate);
  expect((await podNow(pod.id)).rateLimitKibPerSecond).toBe(rate);
});

test("a pass under which the month turns slows nobody for the month that is over", async () => {
  const pod = await aPod();
  used = { [pod.id]: bytesOfGb(50) };
  slowMs = 5;
  const lastMoment = new Date(nextMonth().getTime() - 1_001);
  expect(await evaluate(lastMoment)).toEqual(quiet);
  expect(await evaluate(new Date(lastMoment.getTime() - 60_000))).toMatchObject({ throttled: 1 });
});

test("a larger plan frees the pod within the month, and a rate that somebody set meanwhile stays", async () => {
  const pod = await aPod();
  used = { [pod.id]: bytesOfGb(60) };
  await evaluate();
  await settled();
  await db.system.execute(sql`UPDATE cloud_pods SET rate_limit_kib_per_second = 999 WHERE id = ${pod.id}`);
  await db.system.execute(sql`UPDATE cloud_pod_plans SET bandwidth_gb = 100 WHERE code = 'CLOUD_POD_STUDENT'`);
  expect(await evaluate()).toMatchObject({ freed: 1 });
  await settled();
  expect(rateOnHost(pod)).toBe(999);
});

test.each(["charge", "none"])("the policy %s is told and not slowed", async (policy) => {
  const pod = await aPod();
  await db.system.execute(sql`UPDATE cloud_pod_plans SET overage_policy = ${policy} WHERE code = 'CLOUD_POD_STUDENT'`);
  used = { [pod.id]: bytesOfGb(500) };
  expect(await evaluate()).toEqual({ ...quiet, notices: 2 });
  expect(rateOnHost(pod)).toBe(0);
});

test("a plan without an allowance is not watched", async () => {
  const pod = await aPod("STARTER");
  used = { [pod.id]: bytesOfGb(1_000_000) };
  expect(await evaluate()).toEqual(quiet);
});

test("a throttled pod starts and stops as any other; a suspended one is looked at when it is back", async () => {
  const pod = await aPod();
  used = { [pod.id]: bytesOfGb(50) };
  await evaluate();
  await settled();
  const inTenant = <T>(work: Parameters<typeof db.api.transaction<T>>[0]) => db.api.transaction(work, { tenantId });
  for (const verb of ["stop", "start"] as const) {
    await inTenant((tx) => changePower(tx, who(), pod.id, verb));
    await settled();
  }
  await inTenant((tx) => suspendPod(tx, who(), pod.id, "customer", undefined));
  await settled();
  used = {};
  expect(await evaluate(nextMonth())).toEqual(quiet);
  await inTenant((tx) => resumePod(tx, who(), pod.id, "customer"));
  await settled();
  expect(await evaluate(nextMonth())).toMatchObject({ freed: 1 });
  await settled();
  expect(rateOnHost(pod)).toBe(0);
});

test("what a host refused is asked of it again later", async () => {
  const pod = await aPod();
  used = { [pod.id]: bytesOfGb(50) };
  script = () => ({ state: "failed", errorCode: "PCT_FAILED", retryable: false });
  await evaluate();
  await settled();
  script = () => undefined;
  expect(await evaluate()).toEqual(quiet);
  await db.system.execute(
    sql`UPDATE cloud_pod_provisioning_tasks SET finished_at = now() - interval '6 minutes' WHERE type = 'set-rate' AND pod_id = ${pod.id}`,
  );
  await evaluate();
  await settled();
  expect(rateOnHost(pod)).toBe(128);
});

test("negative control: without the constraint the same mark is noticed every time", async () => {
  const pod = await aPod();
  used = { [pod.id]: bytesOfGb(40) };
  await db.system.execute(
    sql`ALTER TABLE cloud_pod_bandwidth_notices DROP CONSTRAINT cloud_pod_bandwidth_notices_pkey`,
  );
  try {
    expect((await evaluate()).notices + (await evaluate()).notices).toBe(2);
  } finally {
    await db.system.execute(sql`DELETE FROM cloud_pod_bandwidth_notices`);
    await db.system.execute(sql`ALTER TABLE cloud_pod_bandwidth_notices ADD PRIMARY KEY (pod_id, year_month, percent)`);
  }
});
