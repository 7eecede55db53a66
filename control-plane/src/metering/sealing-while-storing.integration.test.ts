import { afterAll, beforeAll, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { allocate } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { batchOf, payloadOf, seedFleet, type FleetNode, type FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { until } from "../../../test/support/until.ts";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { hostingCache } from "../samples-intake/hosting.ts";
import { storeMessages } from "../samples-intake/store-messages.ts";
import { openStorePool, type StorePool } from "../samples-intake/store-pool.ts";
import { usageDays, type UsageDays } from "../samples-intake/usage-days.ts";
import { rollUpDirty } from "./roll-up.ts";
import { sealDays } from "./seal-days.ts";

const dayMs = 86_400_000;
const minuteMs = 60_000;

let db: TestDatabase;
let pool: StorePool;
/** Remembers the days, so that the second batch of a day asks for nothing but the day's lock. */
let days: UsageDays;
let node: FleetNode;
let pod: FleetPod;
const spoolId = newId();
let seq = 0;

beforeAll(async () => {
  db = await createTestDatabase();
  pool = openStorePool(db.systemUrl, 4);
  days = usageDays(pool);
  [node] = (await seedFleet(db.system, { nodes: 1, podsPerNode: 1 })) as [FleetNode];
  [pod] = node.pods as [FleetPod];
  await db.system.execute(sql`UPDATE cloud_pod_placements SET placed_from = '2025-12-01Z'`);
  await allocate(db.system, pod, { from: new Date("2026-01-05T09:00:00Z") });
});
afterAll(async () => {
  await pool.close();
  await db.close();
});

/** Stands still before it commits; without locks ingest does not say which days it writes to. */
interface Way {
  readonly locks: boolean;
  readonly beforeCommit?: (() => Promise<void>) | undefined;
}

function intake({ locks, beforeCommit }: Way): StorePool {
  return {
    ...pool,
    transaction: (deadlineMs, work) =>
      pool.transaction(deadlineMs, async (tx) => {
        const isLeftOut = (text: string) => !locks && text.includes("pg_advisory_xact_lock_shared");
        const done = await work({
          ...tx,
          query: (statement) => tx.query(isLeftOut(statement.text) ? sql`SELECT` : statement),
        });
        await beforeCommit?.();
        return done;
      }),
  };
}

/** The minute that ends at `endMs` arrives. */
async function store(endMs: number, way: Way): Promise<void> {
  const clock = () => endMs + minuteMs;
  const payload = payloadOf(batchOf(node, spoolId, { from: ++seq }, endMs));
  const outcome = await storeMessages({ pool: intake(way), hosting: hostingCache(pool, clock), days, clock }, [
    { nodeId: node.nodeId, payload, receivedAtMs: clock() },
  ]);
  expect(outcome.samplesStored + outcome.samplesLate).toBe(1);
}

async function seal(day: Date, beforeCommit?: () => Promise<void>): Promise<void> {
  const database: Database = {
    ...db.system,
    transaction: (work, options) =>
      db.system.transaction(async (tx) => {
        const done = await work(tx);
        await beforeCommit?.();
        return done;
      }, options),
  };
  expect(await sealDays(database, new Date(day.getTime() + 4 * dayMs))).toContain(day.toISOString().slice(0, 10));
}

async function isWaiting(): Promise<boolean> {
  const rows = await db.system.query(sql`
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`);
  return rows.length > 0;
}

/**
 * A day with one stored minute is sealed while a second minute is stored; whoever is `first` has done everything but
 * commit when the other begins. @returns how many samples the hour has in the end
 */
async function race(date: string, first: "storing" | "sealing", locks: boolean): Promise<bigint | undefined> {
  const day = new Date(`${date}T00:00:00Z`);
  const hour = new Date(`${date}T10:00:00Z`);
  const later = new Date(day.getTime() + 4 * dayMs);
  const rollUpAll = async () => {
    while ((await rollUpDirty(db.system, later)).hours > 0);
  };
  await store(hour.getTime() + minuteMs, { locks: true });
  await rollUpAll();
  const reached = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  const standStill = async () => {
    reached.resolve();
    await released.promise;
  };
  const storing = (beforeCommit?: () => Promise<void>) => store(hour.getTime() + 2 * minuteMs, { locks, beforeCommit });
  const begun = first === "storing" ? storing(standStill) : seal(day, standStill);
  await reached.promise;
  const other = first === "storing" ? seal(day) : storing();
  if (locks) await until("one to wait for the other", isWaiting);
  else await other;
  released.resolve();
  await Promise.all([begun, other]);
  await rollUpAll();
  const [row] = await db.system.query<{ samples: bigint }>(sql`
    SELECT sample_count AS samples FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND hour_start = ${hour}`);
  expect(await db.system.query(sql`SELECT FROM usage_dirty_hours WHERE hour_start = ${hour}`)).toEqual([]);
  return row?.samples;
}

test("a day that somebody writes to is sealed with what he writes", async () => {
  expect(await race("2026-01-05", "storing", true)).toBe(2n);
});

test("what is stored while its day is sealed waits, and is merged as late", async () => {
  expect(await race("2026-01-06", "sealing", true)).toBe(2n);
  const late = await db.system.query(sql`SELECT FROM cloud_pod_usage_late_samples WHERE pod_id = ${pod.podId}`);
  expect(late).toHaveLength(1);
});

test.each([
  ["storing", "2026-01-07"],
  ["sealing", "2026-01-08"],
] as const)(
  "negative control: without the lock of the day, %s first, the sample is in no figure",
  async (first, date) => {
    expect(await race(date, first, false)).toBe(1n);
  },
);
