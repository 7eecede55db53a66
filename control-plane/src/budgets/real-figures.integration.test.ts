import { newId } from "@cloudpods/shared/ids";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sampleOf, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { evaluateBandwidth } from "../bandwidth/evaluate-bandwidth.ts";
import { sql } from "../platform/sql.ts";
import { accruedThisMonth, accrueMonth } from "../rating/accrual.ts";
import { evaluateBudgets } from "./evaluate-budgets.ts";
import { readPace } from "./read-pace.ts";

const hourMs = 3_600_000;
const someHoursAgo = new Date(Math.floor(Date.now() / hourMs - 4) * hourMs);
/** A whole hour whose end lies in its month too: at the turn of a month everything begins at nought. */
const hour =
  new Date(someHoursAgo.getTime() + hourMs).getUTCMonth() === someHoursAgo.getUTCMonth()
    ? someHoursAgo
    : new Date(someHoursAgo.getTime() - hourMs);
const inHour = (minutes: number): Date => new Date(hour.getTime() + minutes * 60_000);
const gigabyte = 2n ** 30n;

let db: TestDatabase;
let fleet: DeliveringFleet;
let node: FleetNode;
let pod: FleetPod;
const deps = () => ({
  db: db.system,
  log: pino({ level: "silent" }),
  hints: { workQueued: () => {} },
  accrue: accrueMonth,
});

beforeAll(async () => {
  db = await createTestDatabase();
  fleet = await deliveringFleet(db, { nodes: 1, podsPerNode: 1, since: hour });
  const [firstNode] = fleet.nodes;
  const [firstPod] = firstNode?.pods ?? [];
  if (firstNode === undefined || firstPod === undefined) throw new Error("one host with one pod");
  [node, pod] = [firstNode, firstPod];
  await allocate(db.system, pod, { from: hour });
});
afterAll(async () => {
  await fleet.close();
  await db.close();
});

/** Minutes of the hour, each with 1 GB sent. */
async function measure(from: number, to: number): Promise<void> {
  for (let minute = from + 1; minute <= to; minute++) {
    const endMs = inHour(minute).getTime();
    await fleet.deliver(node, endMs, { samples: [sampleOf(pod, endMs, { guestOutBytes: gigabyte })] });
  }
}

test("a budget is judged by what was measured a minute ago, long before any roll-up", async () => {
  await measure(0, 20);
  const spent = await accruedThisMonth(db.system, pod.tenantId, inHour(20));
  expect(Number(spent.total)).toBeGreaterThan(0);
  // 80 % of it is spent to the last place.
  await db.system.execute(sql`
    INSERT INTO cloud_pod_budgets (tenant_id, monthly_limit_amount, currency, notification_emails)
    VALUES (${pod.tenantId}, trunc(${spent.total.toString()}::numeric / 0.8, 10), ${spent.currency}, '{pay@example.test}')`);
  expect(await evaluateBudgets(deps(), inHour(19))).toMatchObject({ alerts: 1, failed: 0 });
  expect(await evaluateBudgets(deps(), inHour(20))).toMatchObject({ alerts: 1, failed: 0 });
  await measure(20, 40);
  expect(await evaluateBudgets(deps(), inHour(40))).toMatchObject({ alerts: 1, failed: 0 });
  const alerts = await db.system.query(
    sql`SELECT threshold, current_spend_amount = ${spent.total.toString()}::numeric AS exact FROM cloud_pod_budget_alerts ORDER BY threshold`,
  );
  expect(alerts).toEqual([
    { threshold: 50, exact: false },
    { threshold: 80, exact: true },
    { threshold: 100, exact: false },
  ]);
});

test("the pace is what the last hour cost", async () => {
  await measure(40, 60);
  const whole = await accruedThisMonth(db.system, pod.tenantId, inHour(60));
  const pace = await readPace(db.system, accrueMonth, pod.tenantId, inHour(60));
  expect(pace.spend.compare(whole.total)).toBe(0);
  expect(pace.perHour.compare(whole.total)).toBe(0);
});

test("pods that began a moment ago have the pace that they will have", async () => {
  const began = new Date(hour.getTime() + 1_000);
  const { perHour } = await readPace(db.system, accrueMonth, pod.tenantId, began);
  const month = new Date(Date.UTC(hour.getUTCFullYear(), hour.getUTCMonth() + 1, 0)).getUTCDate() * 24;
  // 2 cores, 1 GB of memory, 20 GB of disk.
  expect(Number(perHour)).toBeCloseTo(2 * 0.01 + 0.005 + (20 * 0.1) / month, 9);
});

test("what a silent host has not told yet is reserved at what its pods cost at most", async () => {
  const unmeasured = async () => Number((await readPace(db.system, accrueMonth, pod.tenantId, inHour(60))).unmeasured);
  expect(await unmeasured()).toBe(0);
  await db.system.execute(sql`UPDATE node_spools SET complete_until = ${inHour(15)}`);
  expect(await unmeasured()).toBeCloseTo(0.75 * (2 * 0.01 + 0.005), 9);
  await db.system.execute(sql`UPDATE cloud_pods SET desired_power = 'stopped' WHERE id = ${pod.podId}`);
  expect(await unmeasured()).toBe(0);
  await db.system.execute(sql`UPDATE cloud_pods SET desired_power = 'running' WHERE id = ${pod.podId}`);
});

test("traffic counts what the guest sent, of samples that no roll-up has seen", async () => {
  const code = `TEST_${newId().slice(-8)}`;
  await db.system.execute(sql`
    INSERT INTO cloud_pod_plans (code, name, family, cores, memory_mb, disk_gb, bandwidth_gb, overage_policy)
    VALUES (${code}, 'Test', 'shared', 2, 1024, 20, 75, 'none')`);
  await db.system.execute(
    sql`UPDATE cloud_pods SET plan_code = ${code}, billing_mode = 'plan', status = 'active' WHERE id = ${pod.podId}`,
  );
  // What it sent while it was metered is paid for by the gigabyte.
  expect(await evaluateBandwidth(deps(), inHour(60))).toMatchObject({ notices: 0, failed: 0 });
  await db.system.execute(
    sql`UPDATE cloud_pod_allocations SET plan_code = ${code}, billing_mode = 'plan' WHERE pod_id = ${pod.podId}`,
  );
  // 60 GB of 75.
  expect(await evaluateBandwidth(deps(), inHour(60))).toMatchObject({ notices: 1, failed: 0 });
  const notices = await db.system.query(
    sql`SELECT percent, used_bytes AS used FROM cloud_pod_bandwidth_notices WHERE pod_id = ${pod.podId}`,
  );
  expect(notices).toEqual([{ percent: 80, used: 60n * gigabyte }]);
});
