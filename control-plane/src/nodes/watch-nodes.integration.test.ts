import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { insertFleet } from "../../../test/support/placement-fleet.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { until } from "../../../test/support/until.ts";
import { createLog } from "../platform/log.ts";
import { sql } from "../platform/sql.ts";
import { startNodeWatch, watchNodesOnce, type NodeWatchOptions } from "./watch-nodes.ts";

let db: TestDatabase;
let fleet: string[];
let alarms: (readonly string[])[];

beforeAll(async () => {
  db = await createTestDatabase();
  fleet = await insertFleet(db.system, { nodes: 6, cores: 8, memoryMb: 16_384, diskGb: 100 });
});
afterAll(() => db.close());
beforeEach(async () => {
  alarms = [];
  await db.system.execute(sql`DELETE FROM node_conditions`);
  await db.system.execute(sql`DELETE FROM node_events`);
  await seen(fleet, 0);
  await db.system.execute(
    sql`UPDATE node_status SET state = 'online', session_connected = true, presence_online = true, quorate = true, agent_version = '1.0.0', fleet_epoch = 1`,
  );
});

const options = (): NodeWatchOptions => ({
  db: db.system,
  log: createLog({ level: "silent" }),
  heartbeatIntervalMs: 10_000,
  agentVersion: "1.0.0",
  onMassVanishing: (names) => alarms.push(names),
});

/** Both channels were last seen so many seconds ago. */
async function seen(nodes: readonly string[], secondsAgo: number): Promise<void> {
  await db.system.execute(sql`
    UPDATE node_status SET session_seen_at = now() - ${secondsAgo} * interval '1 s', last_heartbeat_at = now() - ${secondsAgo} * interval '1 s'
    WHERE node_id = ANY(${[...nodes]}::uuid[])`);
}

const look = () => watchNodesOnce(options(), { nowMs: Date.now(), watchedSinceMs: 0 });

async function states(): Promise<Record<string, number>> {
  const rows = await db.system.query<{ state: string; count: number }>(
    sql`SELECT state, count(*)::integer AS count FROM node_status GROUP BY state`,
  );
  return Object.fromEntries(rows.map((row) => [row.state, row.count]));
}

async function conditions(nodeId: string): Promise<string[]> {
  const rows = await db.system.query<{ kind: string }>(
    sql`SELECT kind FROM node_conditions WHERE node_id = ${nodeId} ORDER BY kind`,
  );
  return rows.map((row) => row.kind);
}

describe("states", () => {
  test("a silent host goes offline, an hour later lost, and comes back, each with a line of history", async () => {
    const [host = ""] = fleet;
    for (const secondsAgo of [35, 3_700, 0]) {
      await seen([host], secondsAgo);
      await look();
      await look();
    }
    const events = await db.system.query<{ message: string }>(
      sql`SELECT message FROM node_events WHERE node_id = ${host} ORDER BY id`,
    );
    expect(events.map((event) => event.message)).toEqual(["online → offline", "offline → lost", "lost → online"]);
    expect(await states()).toEqual({ online: 6 });
    expect(alarms).toEqual([]);
  });

  test("a host on which others are at work keeps no other waiting, and has its turn at the next look", async () => {
    const [busy = "", other = ""] = fleet;
    await seen([busy, other], 35);
    await db.system.transaction(async (tx) => {
      await tx.query(sql`SELECT FROM node_status WHERE node_id = ${busy} FOR NO KEY UPDATE`);
      await look();
      expect(await states()).toEqual({ online: 5, offline: 1 });
    });
    await look();
    expect(await states()).toEqual({ online: 4, offline: 2 });
  });

  test("one replica looks at a time", async () => {
    await seen(fleet.slice(0, 1), 35);
    await db.system.transaction(async (tx) => {
      await tx.query(sql`SELECT pg_advisory_xact_lock(${0x6361_0002})`);
      await look();
      expect(await states()).toEqual({ online: 6 });
    });
    await look();
    expect(await states()).toEqual({ online: 5, offline: 1 });
  });

  test("a control plane that was away holds nothing against the hosts", async () => {
    await seen(fleet, 600);
    const [host = ""] = fleet;
    await db.system.execute(sql`UPDATE node_status SET quorate = false WHERE node_id = ${host}`);
    const watch = startNodeWatch({ ...options(), everyMs: 20 });
    await until("a look", async () => (await conditions(host)).includes("NoQuorum"));
    await watch.stop();
    expect(await states()).toEqual({ online: 6 });
    expect(alarms).toEqual([]);
  });
});

describe("the brake", () => {
  test("a third of the fleet that vanishes together is one alarm, and nobody is lost", async () => {
    await seen(fleet.slice(0, 3), 35);
    await look();
    await look();
    expect(alarms).toHaveLength(1);
    expect(alarms[0]).toHaveLength(3);
    expect(await states()).toEqual({ online: 3, offline: 3 });
    await seen(fleet.slice(0, 3), 4_000);
    await look();
    await look();
    expect(await states()).toEqual({ online: 3, offline: 3 });
    expect(await conditions(fleet[0] ?? "")).toContain("MassVanishing");
    await seen(fleet.slice(0, 3), 0);
    await look();
    expect(await states()).toEqual({ online: 6 });
    expect(await conditions(fleet[0] ?? "")).not.toContain("MassVanishing");
    expect(alarms).toHaveLength(1);
  });

  test("without togetherness the same three are lost", async () => {
    for (const [index, host] of fleet.slice(0, 3).entries()) await seen([host], 4_000 + index * 200);
    await look();
    await look();
    expect(await states()).toEqual({ online: 3, lost: 3 });
    expect(alarms).toEqual([]);
  });
});

describe("conditions", () => {
  test("follow the tables, begin and end once", async () => {
    const [host = ""] = fleet;
    await db.system.execute(
      sql`UPDATE node_status SET quorate = false, agent_version = '0.9.0', fleet_epoch = 7, inventory_at = now() WHERE node_id = ${host}`,
    );
    await db.system.execute(sql`UPDATE nodes SET template_vmid = 4711 WHERE id = ${host}`);
    await db.system.execute(sql`UPDATE node_capacity SET memory_allocated_mb = 1000 WHERE node_id = ${host}`);
    await db.system.execute(sql`UPDATE node_capacity SET memory_total_mb = 500 WHERE node_id = ${host}`);
    await look();
    await look();
    expect(await conditions(host)).toEqual([
      "CapacityBelowAllocation",
      "FleetEpochAhead",
      "NoQuorum",
      "TemplateMissing",
      "VersionSkew",
    ]);
    await db.system.execute(
      sql`UPDATE node_status SET quorate = true, agent_version = '1.0.0', fleet_epoch = 1 WHERE node_id = ${host}`,
    );
    await db.system.execute(sql`UPDATE nodes SET template_vmid = NULL, template_archive = NULL WHERE id = ${host}`);
    await db.system.execute(
      sql`UPDATE node_capacity SET memory_total_mb = 16384, memory_allocated_mb = 0 WHERE node_id = ${host}`,
    );
    await look();
    await look();
    expect(await conditions(host)).toEqual([]);
    const [count] = await db.system.query(sql`
      SELECT count(*) FILTER (WHERE kind = 'CONDITION_RAISED')::integer AS raised, count(*) FILTER (WHERE kind = 'CONDITION_CLEARED')::integer AS cleared FROM node_events`);
    expect(count).toEqual({ raised: 5, cleared: 5 });
  });

  test("a storage that promises more than it has is shown on each host that sees it, and on no other", async () => {
    const [first = "", second = ""] = fleet;
    const [storage] = await db.system.query<{ id: string }>(sql`SELECT id FROM storages WHERE node_id = ${first}`);
    const id = storage?.id ?? "";
    await db.system.execute(sql`INSERT INTO node_storages (node_id, storage_id) VALUES (${second}, ${id})`);
    await db.system.execute(sql`UPDATE storages SET allocated_gb = 50 WHERE id = ${id}`);
    await db.system.execute(sql`UPDATE storages SET total_gb = 20 WHERE id = ${id}`);
    await look();
    const shown = await db.system.query<{ nodeId: string }>(
      sql`SELECT node_id AS "nodeId" FROM node_conditions WHERE kind = 'CapacityBelowAllocation' AND message LIKE '%storage%50 of%'`,
    );
    expect(new Set(shown.map(({ nodeId }) => nodeId))).toEqual(new Set([first, second]));
    await db.system.execute(sql`DELETE FROM node_storages WHERE node_id = ${second} AND storage_id = ${id}`);
    await db.system.execute(sql`UPDATE storages SET allocated_gb = 0, total_gb = 100 WHERE id = ${id}`);
    await look();
    expect(await conditions(first)).toEqual([]);
  });

  test("a certificate in the last quarter of its life is shown, unless a newer one is there", async () => {
    const [host = ""] = fleet;
    const add = (serial: string, begunDaysAgo: number) =>
      db.system.execute(sql`
        INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after, issued_at)
        VALUES (${serial}, ${host}, '', '', now() - ${begunDaysAgo} * interval '1 day', now() + (30 - ${begunDaysAgo}) * interval '1 day',
          now() - ${begunDaysAgo} * interval '1 day')`);
    await add("aa", 25);
    await look();
    expect(await conditions(host)).toEqual(["CertificateExpiring"]);
    await add("bb", 1);
    await look();
    expect(await conditions(host)).toEqual([]);
  });
});
