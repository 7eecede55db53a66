import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { sampleOf, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { rollUpDirty } from "../metering/roll-up.ts";
import { sql } from "../platform/sql.ts";
import { alertEndedMonth } from "./evaluate-budgets.ts";

const end = new Date("2026-02-01T00:00:00Z");
const around = (minutes: number) => new Date(end.getTime() + minutes * 60_000);

let db: TestDatabase;
let fleet: DeliveringFleet;
let node: FleetNode;
let pod: FleetPod;

beforeAll(async () => {
  db = await createTestDatabase();
  fleet = await deliveringFleet(db, { nodes: 1, podsPerNode: 1, since: around(-60) });
  [node] = fleet.nodes as [FleetNode];
  [pod] = node.pods as [FleetPod];
  await allocate(db.system, pod, { from: around(-60) });
});
afterAll(async () => {
  await fleet.close();
  await db.close();
});

const judge = (now: Date) => alertEndedMonth({ db: db.system, log: pino({ level: "silent" }) }, now);
const deliver = (endMs: number, nowMs = endMs + 1_000) =>
  fleet.deliver(node, endMs, { samples: [sampleOf(pod, endMs, { guestOutBytes: 2n ** 40n })], nowMs });

test("the last minute of a month and what comes late are judged as they are billed", async () => {
  await deliver(end.getTime());
  await rollUpDirty(db.system, around(6));
  const [month] = await db.system.query<{ cost: string }>(
    sql`SELECT cost_total AS cost FROM cloud_pod_usage_monthly WHERE pod_id = ${pod.podId} AND year_month = '2026-01'`,
  );
  // To the last place: less than what is billed would not reach it.
  await db.system.execute(sql`
    INSERT INTO cloud_pod_budgets (tenant_id, monthly_limit_amount, currency, alert_threshold_3)
    VALUES (${pod.tenantId}, ${month?.cost}, 'USD', 150)`);
  expect(await judge(around(10))).toBe(2);
  await db.system.execute(sql`UPDATE cloud_pod_budgets SET alert_threshold_2 = 100`);
  expect(await judge(around(10))).toBe(1);
  await deliver(around(-10).getTime(), around(70 * 60).getTime());
  await rollUpDirty(db.system, around(70 * 60 + 6));
  expect(await judge(around(72 * 60))).toBe(1);
  const alerts = await db.system.query<{ threshold: number }>(
    sql`SELECT threshold FROM cloud_pod_budget_alerts WHERE year_month = '2026-01' ORDER BY threshold`,
  );
  expect(alerts.map(({ threshold }) => threshold)).toEqual([50, 80, 100, 150]);
});
