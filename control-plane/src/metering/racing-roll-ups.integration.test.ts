import { afterAll, beforeAll, expect, test } from "vitest";
import { allocate, deliveringFleet, type DeliveringFleet } from "../../../test/support/metered-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import type { FleetNode, FleetPod } from "../../../test/support/telemetry-fleet.ts";
import { until } from "../../../test/support/until.ts";
import type { Database } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { rollUpHour } from "./roll-up-hours.ts";
import { rollUpDirty } from "./roll-up.ts";

const minuteMs = 60_000;
/** Number of the lock before which a roll-up that stands still waits, between what it has read and what it writes. */
const gate = 4_711;

let db: TestDatabase;
let fleet: DeliveringFleet;
let node: FleetNode;
let pod: FleetPod;

beforeAll(async () => {
  db = await createTestDatabase();
  fleet = await deliveringFleet(db, { nodes: 1, podsPerNode: 1, since: new Date("2026-01-05T09:00:00Z") });
  [node] = fleet.nodes as [FleetNode];
  [pod] = node.pods as [FleetPod];
  await allocate(db.system, pod, { from: new Date("2026-01-05T09:00:00Z") });
  await db.system.execute(sql`
    CREATE FUNCTION stand_still() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF current_setting('test.stands_still', true) = 'yes' THEN PERFORM pg_advisory_xact_lock(4711); END IF;
      RETURN NEW;
    END $$`);
  await db.system.execute(
    sql`CREATE TRIGGER stands_still BEFORE INSERT ON cloud_pod_usage_hourly FOR EACH ROW EXECUTE FUNCTION stand_still()`,
  );
});
afterAll(async () => {
  await fleet.close();
  await db.close();
});

/** The database of one replica. */
function replica(how: { readonly standsStill: boolean; readonly locks: boolean }): Database {
  return {
    ...db.system,
    transaction: (work, options) =>
      db.system.transaction(async (tx) => {
        if (how.standsStill) await tx.query(sql`SELECT set_config('test.stands_still', 'yes', true)`);
        const isLeftOut = (text: string) => !how.locks && text.includes("pg_advisory_xact_lock");
        return await work({
          ...tx,
          query: (statement) => tx.query(isLeftOut(statement.text) ? sql`SELECT` : statement),
        });
      }, options),
  };
}

/** So many wait for an advisory lock. */
async function waiting(count: number): Promise<boolean> {
  const rows = await db.system.query(sql`
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`);
  return rows.length === count;
}

/**
 * A roll-up makes an hour for the first time and has seen no sample when it stands still; one comes, and another
 * replica makes the hour with it. @returns how many samples the hour has in the end
 */
async function race(hour: Date, locks: boolean): Promise<bigint | undefined> {
  const settled = new Date(hour.getTime() + 66 * minuteMs);
  const roll = (standsStill: boolean) => rollUpHour(replica({ standsStill, locks }), hour, settled);
  const rollUps: Promise<unknown>[] = [];
  await db.system.transaction(async (tx) => {
    await tx.query(sql`SELECT pg_advisory_xact_lock(${gate})`);
    rollUps.push(roll(true));
    await until("the older roll-up to have read", () => waiting(1));
    await fleet.deliver(node, hour.getTime() + minuteMs);
    rollUps.push(roll(false));
    if (locks) await until("the newer roll-up to wait for the older", () => waiting(2));
    else await rollUps[1];
  });
  await Promise.all(rollUps);
  await rollUpDirty(db.system, settled);
  const [row] = await db.system.query<{ samples: bigint }>(sql`
    SELECT sample_count AS samples FROM cloud_pod_usage_hourly WHERE pod_id = ${pod.podId} AND hour_start = ${hour}`);
  expect(await db.system.query(sql`SELECT FROM usage_dirty_hours WHERE hour_start = ${hour}`)).toEqual([]);
  return row?.samples;
}

test("a roll-up that read before a sample came does not write over one that has it", async () => {
  expect(await race(new Date("2026-01-05T10:00:00Z"), true)).toBe(1n);
});

test("negative control: without the lock of the hour the older one writes last, and nothing marks what is lost", async () => {
  expect(await race(new Date("2026-01-05T12:00:00Z"), false)).toBe(0n);
});
