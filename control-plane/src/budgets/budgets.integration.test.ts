import { Money } from "@cloudpods/shared/money";
import { newId } from "@cloudpods/shared/ids";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { accrueAsTold } from "../../../test/support/accrued.ts";
import { bellOf, untilRung } from "../../../test/support/bell.ts";
import { makePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { aTenant, anOnlineNode } from "../../../test/support/rows.ts";
import { startScriptedHost, type ScriptedHost } from "../../../test/support/scripted-host.ts";
import { startTestWorker } from "../../../test/support/test-worker.ts";
import { insertUsageMonth } from "../../../test/support/usage-rows.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { changePower } from "../pods/change-power.ts";
import { orderPod } from "../pods/order-pod.ts";
import { findPod, type Pod } from "../pods/pod.ts";
import { createFleetView } from "../scheduling/fleet-view.ts";
import { systemActor } from "../security/actor.ts";
import { findTask } from "../tasks/change-task.ts";
import type { TaskWorker } from "../tasks/task-worker.ts";
import { writeBudget, yearMonthOf, type BudgetWish } from "./budget.ts";
import { alertEndedMonth, evaluateBudgets, type BudgetDeps, type BudgetReport } from "./evaluate-budgets.ts";

const fleet = createFleetView();
const log = pino({ level: "silent" });
let db: TestDatabase;
let tenantId: string;
let host: ScriptedHost;
let worker: TaskWorker;
let spend: string;

beforeAll(async () => {
  db = await createTestDatabase();
  await anOnlineNode(db.system);
});
afterAll(() => db.close());
beforeEach(async () => {
  // Nobody of the tests before is judged and given back with whoever is here.
  await db.system.execute(sql`DELETE FROM cloud_pod_budgets`);
  tenantId = (await aTenant(db.system)).id;
  await db.system.execute(sql`UPDATE tenants SET billing_email = 'pay@example.test' WHERE id = ${tenantId}`);
  spend = "0";
  await setBudget({});
  host = startScriptedHost(db.system);
  worker = startTestWorker(db.system, fleet);
});
afterEach(async () => {
  await worker.stop();
  await host.stop();
});

const deps = (): BudgetDeps => ({
  db: db.system,
  log,
  hints: { workQueued: () => bellOf(db.system).ring() },
  accrue: accrueAsTold((id) => (id === tenantId ? { spend } : {})),
});
const evaluate = (now = new Date()): Promise<BudgetReport> => evaluateBudgets(deps(), now);
const inTenant = <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => db.api.transaction(work, { tenantId });
const who = () => ({ tenantId, actor: systemActor("test"), requestId: newId() });
const nextMonth = (): Date => {
  const now = new Date();
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1, 1, 0, 0, 1));
};

async function setBudget(wish: Partial<Omit<BudgetWish, "limit">> & { limit?: string }): Promise<void> {
  const { limit = "10", ...rest } = wish;
  await inTenant((tx) =>
    writeBudget(tx, tenantId, {
      thresholds: [50, 80, 100],
      hardLimitEnabled: true,
      hardLimitAction: "stop_pods",
      emails: [],
      webhookUrl: null,
      ...rest,
      limit: Money.of(limit, "USD"),
    }),
  );
}

const order = (labels: Record<string, string> = {}) =>
  inTenant((tx) =>
    orderPod(
      tx,
      { ...who(), defaultRegion: "local", fleet, isEmailVerified: () => Promise.resolve(false) },
      { hostname: "shop", planCode: "STARTER", labels },
    ),
  );

async function settled(): Promise<void> {
  await untilRung("the end of all work", db.system, async () => {
    const open = await db.system.query(
      sql`SELECT FROM cloud_pod_provisioning_tasks WHERE tenant_id = ${tenantId} AND finished_at IS NULL`,
    );
    return open.length === 0;
  });
}

async function activePod(labels: Record<string, string> = {}): Promise<Pod> {
  const { pod, task } = await order(labels);
  await untilRung("the pod", db.system, async () => (await findTask(db.system, task.id)).state === "succeeded");
  return await podNow(pod.id);
}

const podNow = (id: string): Promise<Pod> => inTenant((tx) => findPod(tx, tenantId, id));
const power = (verb: "start" | "stop" | "restart", pod: Pod) => inTenant((tx) => changePower(tx, who(), pod.id, verb));
const runs = (pod: Pod): boolean => host.containers.get(pod.vmid)?.power === Power.POWER_RUNNING;

async function alerts(): Promise<{ month: string; threshold: number; via: string[] }[]> {
  return await db.system.query(sql`
    SELECT year_month AS month, threshold, notified_via AS via FROM cloud_pod_budget_alerts WHERE tenant_id = ${tenantId}
    ORDER BY year_month, threshold`);
}
async function told(): Promise<string[]> {
  const rows = await db.system.query<{ key: string }>(
    sql`SELECT dedupe_key AS key FROM notifications WHERE tenant_id = ${tenantId} ORDER BY id`,
  );
  return rows.map((row) => row.key);
}

test("each threshold is told once on its way up, however often and by how many it is evaluated", async () => {
  await setBudget({ hardLimitAction: "notify_only" });
  await order();
  const month = yearMonthOf(new Date());
  for (const [now, expected] of [
    ["4.9999999999", []],
    ["5", [50]],
    ["7", [50]],
    ["8.5", [50, 80]],
    ["30", [50, 80, 100]],
  ] as const) {
    spend = now;
    await Promise.all([evaluate(), evaluate(), evaluate()]);
    expect((await alerts()).map(({ threshold }) => threshold)).toEqual(expected);
  }
  expect(await told()).toEqual([`budget:${month}:50`, `budget:${month}:80`, `budget:${month}:100`]);
  expect((await alerts())[0]).toEqual({ month, threshold: 50, via: ["email"] });
});

test("raised and crossed again in the same month tells nothing again, the next month does", async () => {
  await order();
  await setBudget({ hardLimitAction: "notify_only" });
  spend = "9";
  await evaluate();
  await setBudget({ limit: "100", hardLimitAction: "notify_only" });
  await evaluate();
  spend = "85";
  expect((await evaluate()).alerts).toBe(0);
  spend = "100";
  expect((await evaluate()).alerts).toBe(1);
  // A threshold of another height is another threshold.
  await setBudget({ limit: "100", thresholds: [60, 80, 100], hardLimitAction: "notify_only" });
  expect((await evaluate()).alerts).toBe(1);
  expect((await evaluate(nextMonth())).alerts).toBe(3);
  expect(new Set((await alerts()).map(({ month }) => month)).size).toBe(2);
});

test("a spent budget stops the pods, least important first, and refuses starts and orders with the reason", async () => {
  const pods = [await activePod({ priority: "10" }), await activePod(), await activePod({ priority: "-1" })];
  const [important, usual, minor] = pods as [Pod, Pod, Pod]; // three were made
  const customerStopped = await activePod();
  await power("stop", customerStopped);
  await settled();
  spend = "10";
  expect(await evaluate()).toEqual({ alerts: 3, stopped: 3, givenBack: 0, failed: 0 });
  expect(await evaluate()).toMatchObject({ alerts: 0, stopped: 0, failed: 0 });
  const order = await db.system.query<{ podId: string }>(
    sql`SELECT pod_id AS "podId" FROM cloud_pod_holds WHERE tenant_id = ${tenantId} AND kind = 'budget' ORDER BY id`,
  );
  expect(order.map(({ podId }) => podId)).toEqual([minor.id, usual.id, important.id]);
  await settled();
  expect(pods.map(runs)).toEqual([false, false, false]);
  // What the customer wants stays written.
  expect((await podNow(usual.id)).desiredPower).toBe("running");
  await expect(power("start", usual)).rejects.toMatchObject({ code: "POD_ON_HOLD", details: { kind: "budget" } });
  await expect(power("restart", usual)).rejects.toMatchObject({ code: "POD_ON_HOLD" });
  await expect(power("start", customerStopped)).rejects.toMatchObject({
    code: "BUDGET_EXHAUSTED",
    details: { limit: "10", currency: "USD" },
  });
  await expect(activePod()).rejects.toMatchObject({ code: "BUDGET_EXHAUSTED" });
  expect(await told()).toContain(`budget-exhausted:${yearMonthOf(new Date())}:1`);
});

test("raising the budget gives back exactly what it stopped", async () => {
  const [kept, stoppedMeanwhile] = [await activePod({ priority: "1" }), await activePod()];
  const customerStopped = await activePod();
  await power("stop", customerStopped);
  await settled();
  spend = "12";
  await evaluate();
  await settled();
  await power("stop", stoppedMeanwhile);
  await settled();
  await setBudget({ limit: "50" });
  expect(await evaluate()).toMatchObject({ stopped: 0, givenBack: 2, failed: 0 });
  expect(await evaluate()).toMatchObject({ stopped: 0, givenBack: 0 });
  await settled();
  expect([kept, stoppedMeanwhile, customerStopped].map(runs)).toEqual([true, false, false]);
  await power("start", customerStopped);
  await settled();
  expect(runs(customerStopped)).toBe(true);
  // And crossing the raised limit stops again.
  spend = "50";
  expect(await evaluate()).toMatchObject({ stopped: 2 });
});

test("the turn of the month (UTC) gives everything back", async () => {
  const pod = await activePod();
  spend = "10";
  await evaluate();
  await settled();
  expect(runs(pod)).toBe(false);
  spend = "0.01";
  expect(await evaluate(nextMonth())).toMatchObject({ givenBack: 1, alerts: 0 });
  await settled();
  expect(runs(pod)).toBe(true);
});

test("what is spent in the last moments of a month is told in the first days of the next, and stops nobody", async () => {
  const pod = await activePod();
  const yearMonth = yearMonthOf(new Date());
  await insertUsageMonth(db.system, { tenantId, podId: pod.id, yearMonth, costPlan: "10" });
  expect(await alertEndedMonth(deps(), nextMonth())).toBe(3);
  expect(await alertEndedMonth(deps(), nextMonth())).toBe(0);
  expect((await alerts()).map(({ month }) => month)).toEqual(Array(3).fill(yearMonth));
  expect(runs(pod)).toBe(true);
  const later = new Date(nextMonth().getTime() + 5 * 86_400_000);
  await db.system.execute(sql`DELETE FROM cloud_pod_budget_alerts WHERE tenant_id = ${tenantId}`);
  expect(await alertEndedMonth(deps(), later)).toBe(0);
});

test("a pass under which the month turns stops nobody for the month that is over", async () => {
  const pod = await activePod();
  spend = "10";
  const slowly: BudgetDeps = {
    ...deps(),
    async accrue(...asked) {
      const accrued = await deps().accrue(...asked);
      await new Promise((resolve) => setTimeout(resolve, 5));
      return accrued;
    },
  };
  const lastMoment = new Date(nextMonth().getTime() - 1_001);
  expect(await evaluateBudgets(slowly, lastMoment)).toMatchObject({ stopped: 0, alerts: 0 });
  expect(runs(pod)).toBe(true);
  // The same pass a while earlier does.
  expect(await evaluateBudgets(slowly, new Date(lastMoment.getTime() - 60_000))).toMatchObject({ stopped: 1 });
});

test("notify_only and a limit that is switched off stop nothing", async () => {
  const pod = await activePod();
  spend = "99";
  await setBudget({ hardLimitAction: "notify_only" });
  expect(await evaluate()).toMatchObject({ alerts: 3, stopped: 0 });
  await setBudget({ hardLimitEnabled: false });
  expect(await evaluate()).toMatchObject({ alerts: 0, stopped: 0 });
  expect(runs(pod)).toBe(true);
});

test("an evaluation that dies between two pods is finished by the next one", async () => {
  const [first, second] = [await activePod({ priority: "1" }), await activePod({ priority: "2" })];
  spend = "10";
  let told = 0;
  const dying: BudgetDeps = {
    ...deps(),
    hints: {
      workQueued() {
        told += 1;
        throw new Error("the process died here");
      },
    },
  };
  expect(await evaluateBudgets(dying, new Date())).toMatchObject({ failed: 1, alerts: 3 });
  expect(told).toBe(1);
  expect(await evaluate()).toMatchObject({ alerts: 0, stopped: 1 });
  await settled();
  expect([first, second].map(runs)).toEqual([false, false]);
  // The same on the way back.
  await setBudget({ limit: "100" });
  expect(await evaluateBudgets(dying, new Date())).toMatchObject({ failed: 1 });
  await evaluate();
  await settled();
  expect([first, second].map(runs)).toEqual([true, true]);
});

test("a tenant whose month cannot be accrued does not keep the others from being judged", async () => {
  await order();
  const other = (await aTenant(db.system)).id;
  await makePod(db, other, { hostname: "poison" });
  await db.system.execute(
    sql`INSERT INTO cloud_pod_budgets (tenant_id, monthly_limit_amount, currency) VALUES (${other}, 10, 'USD')`,
  );
  spend = "5";
  const poisoned: BudgetDeps = {
    ...deps(),
    async accrue(database, tenantIds, at) {
      if (tenantIds.includes(other)) throw new Error("statement timeout");
      return await deps().accrue(database, tenantIds, at);
    },
  };
  expect(await evaluateBudgets(poisoned, new Date())).toMatchObject({ alerts: 1, failed: 1 });
});

test("a pod with work under way is stopped when that is done", async () => {
  const pod = await activePod();
  await worker.stop();
  await power("restart", pod);
  spend = "10";
  expect(await evaluate()).toMatchObject({ stopped: 0, failed: 0 });
  worker = startTestWorker(db.system, fleet);
  await settled();
  expect(await evaluate()).toMatchObject({ stopped: 1 });
  await settled();
  expect(runs(pod)).toBe(false);
});

test("tenants' own login cannot say that a budget is not spent", async () => {
  await expect(
    inTenant((tx) =>
      tx.execute(sql`UPDATE cloud_pod_budgets SET exhausted_month = NULL WHERE tenant_id = ${tenantId}`),
    ),
  ).rejects.toMatchObject({ code: "42501" });
});

test("an alert that cannot be told is not given: both are one transaction", async () => {
  await order();
  spend = "5";
  await db.system.execute(sql`ALTER TABLE notifications RENAME TO notifications_away`);
  try {
    expect(await evaluate()).toMatchObject({ alerts: 0, failed: 1 });
  } finally {
    await db.system.execute(sql`ALTER TABLE notifications_away RENAME TO notifications`);
  }
  expect(await alerts()).toEqual([]);
  expect(await evaluate()).toMatchObject({ alerts: 1, failed: 0 });
});

test("negative control: without the constraint the same alert comes with every evaluation", async () => {
  const bare = await createTestDatabase();
  try {
    await bare.system.execute(sql`ALTER TABLE cloud_pod_budget_alerts DROP CONSTRAINT one_alert_per_threshold`);
    tenantId = (await aTenant(bare.system)).id;
    await makePod(bare, tenantId, { hostname: "shop" });
    await bare.system.execute(sql`
      INSERT INTO cloud_pod_budgets (tenant_id, monthly_limit_amount, currency) VALUES (${tenantId}, 10, 'USD')`);
    spend = "5";
    const both = [
      { ...deps(), db: bare.system },
      { ...deps(), db: bare.system },
    ];
    const reports = await Promise.all(both.map((each) => evaluateBudgets(each, new Date())));
    expect(reports.reduce((sum, { alerts: count }) => sum + count, 0)).toBe(2);
  } finally {
    await bare.close();
  }
});
