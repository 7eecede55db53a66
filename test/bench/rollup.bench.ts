import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { newId } from "@cloudpods/shared/ids";
import { rollUpHour } from "../../control-plane/src/metering/roll-up-hours.ts";
import { openDatabase, type Database } from "../../control-plane/src/platform/database.ts";
import { startEmbeddedPostgres } from "../../control-plane/src/platform/embedded-postgres.ts";
import { createLogins, migrate } from "../../control-plane/src/platform/migrate.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { openStorePool } from "../../control-plane/src/samples-intake/store-pool.ts";
import { usageDays } from "../../control-plane/src/samples-intake/usage-days.ts";
import { seedFleet } from "../support/telemetry-fleet.ts";
import { printBenchResult } from "./bench-result.ts";

/**
 * Samples per second that an hour of the whole fleet is rolled up with: sums, covered time, histogram,
 * classes of time, rating, marks for the day, all durable; beside the bare GROUP BY of the same samples into a
 * table of the same sums. Both run with the same memory; rounds alternate.
 */
const hosts = Number(process.env["BENCH_HOSTS"] ?? 1_000);
const podsPerHost = Number(process.env["BENCH_PODS"] ?? 50);
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 5);
const minutes = 60;
const samples = hosts * podsPerHost * minutes;

const hour = new Date("2026-01-05T10:00:00Z");
const hourEnd = new Date("2026-01-05T11:00:00Z");

/** What every host measured: a mean load of its own for each pod, and a bit more or less each minute. */
async function fill(db: Database): Promise<void> {
  await db.execute(sql`
    INSERT INTO cloud_pod_allocations (id, tenant_id, pod_id, valid, billing_mode, cores, memory_mb, disk_gb)
    SELECT gen_random_uuid(), tenant_id, id, tstzrange('2026-01-01Z', NULL), 'metered', 2, 1024, 20 FROM cloud_pods`);
  await db.execute(sql`TRUNCATE usage_dirty_hours`);
  await db.execute(sql`UPDATE cloud_pod_placements SET placed_from = '2026-01-01Z'`);
  await db.execute(
    sql`INSERT INTO node_spools (node_id, spool_id, contiguous_seq, complete_until) SELECT id, id, ${minutes}, ${hourEnd} FROM nodes`,
  );
  await db.execute(sql`
    INSERT INTO node_coverage (spool_no, seq_from, covers_from, covers_to)
    SELECT spool_no, m, ${hour}::timestamptz + make_interval(mins => m - 1), ${hour}::timestamptz + make_interval(mins => m)
    FROM node_spools, generate_series(1, ${minutes}) AS m`);
  for (let minute = 1; minute <= minutes; minute++)
    await db.execute(sql`
      INSERT INTO cloud_pod_usage_samples
      SELECT p.id, ${hour}::timestamptz + make_interval(mins => ${minute}), s.spool_no, ${minute}, ${hour}::timestamptz + make_interval(mins => ${minute - 1}),
        60000, (((p.vmid % 97) / 97.0 * 0.8 + random() * 0.1) * 120000000)::bigint, 3000, (random() * 6e13)::bigint, 600000000,
        (random() * 1e15)::bigint, 4000000000, (random() * 1e8)::bigint, (random() * 1e8)::bigint, (random() * 1e8)::bigint, (random() * 1e8)::bigint,
        1, 2, 1024, 20, '6f2a9c1e:4711:eth0/12'
      FROM cloud_pods p JOIN node_spools s USING (node_id)`);
  await db.execute(sql`INSERT INTO usage_dirty_hours (hour_start, node_id) SELECT ${hour}, id FROM nodes`);
}

async function measureBare(client: pg.Client): Promise<number> {
  await client.query("TRUNCATE bare_hourly");
  await client.query(
    "BEGIN; SET LOCAL work_mem = '512MB'; SET LOCAL hash_mem_multiplier = 4; SET LOCAL jit = off; SET LOCAL enable_indexscan = off",
  );
  const startedMs = performance.now();
  await client.query(
    `INSERT INTO bare_hourly
     SELECT pod_id, $1, sum(sample_count), sum(running_ms), sum(cpu_usage_us), max(cpu_max_basis_points), sum(memory_byte_ms), max(memory_max_bytes),
       sum(disk_byte_ms), max(disk_max_bytes), sum(guest_in_bytes), sum(guest_out_bytes), sum(io_read_bytes), sum(io_write_bytes)
     FROM cloud_pod_usage_samples WHERE sample_time > $1 AND sample_time <= $2 GROUP BY pod_id`,
    [hour, hourEnd],
  );
  await client.query("COMMIT");
  return (samples * 1_000) / (performance.now() - startedMs);
}

async function measureRollUp(db: Database): Promise<number> {
  await db.execute(sql`TRUNCATE cloud_pod_usage_hourly, usage_hours, usage_dirty_days`);
  await db.execute(
    sql`INSERT INTO usage_dirty_hours (hour_start, node_id) SELECT ${hour}, id FROM nodes WHERE NOT EXISTS (SELECT FROM usage_dirty_hours)`,
  );
  const startedMs = performance.now();
  const { pods } = await rollUpHour(db, hour, new Date("2026-01-05T11:05:00Z"));
  const elapsedMs = performance.now() - startedMs;
  if (pods !== hosts * podsPerHost) throw new Error(`${pods} pods were rolled up, not ${hosts * podsPerHost}`);
  return (samples * 1_000) / elapsedMs;
}

async function check(db: Database): Promise<void> {
  const [row] = await db.query<{ differing: bigint }>(sql`
    SELECT count(*) AS differing FROM cloud_pod_usage_hourly h JOIN bare_hourly b USING (pod_id)
    WHERE (h.sample_count, h.cpu_usage_us, h.guest_out_bytes, h.memory_byte_ms, h.uptime_ms) <> (b.sample_count, b.cpu_usage_us, b.guest_out_bytes, b.memory_byte_ms, 3600000)`);
  if (row?.differing !== 0n) throw new Error(`${row?.differing} pods differ from the bare sums`);
}

function median(figures: readonly number[]): number {
  return figures.toSorted((a, b) => a - b)[Math.floor(figures.length / 2)] ?? Number.NaN;
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-bench-"));
  const server = await startEmbeddedPostgres({ directory });
  try {
    const logins = await createLogins(server.superuserUrl, "bench");
    await migrate(logins.systemUrl, logins.apiUrl);
    await measure(logins.systemUrl, server.superuserUrl);
  } finally {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

async function measure(url: string, superuserUrl: string): Promise<void> {
  const db = openDatabase({ url, applicationName: `bench-${newId()}`, connectionsMax: 2, statementTimeoutMs: 600_000 });
  const pool = openStorePool(url, 1);
  const client = new pg.Client({ connectionString: url });
  const superuser = new pg.Client({ connectionString: superuserUrl });
  await Promise.all([client.connect(), superuser.connect()]);
  await seedFleet(db, { nodes: hosts, podsPerNode: podsPerHost });
  await usageDays(pool).makeAhead(hour.getTime());
  await fill(db);
  await client.query("VACUUM ANALYZE");
  await client.query(`
    CREATE TABLE bare_hourly (pod_id uuid, hour_start timestamptz, sample_count bigint, running_ms bigint, cpu_usage_us bigint, cpu_max integer, memory_byte_ms numeric,
      memory_max bigint, disk_byte_ms numeric, disk_max bigint, guest_in_bytes bigint, guest_out_bytes bigint, io_read bigint, io_write bigint, PRIMARY KEY (hour_start, pod_id))`);
  const figures: { bare: number; value: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    await superuser.query("CHECKPOINT");
    const bare = await measureBare(client);
    await superuser.query("CHECKPOINT");
    const value = await measureRollUp(db);
    await check(db);
    console.log(`round ${round + 1}: ${Math.round(value)} samples/s, bare GROUP BY ${Math.round(bare)} samples/s`);
    figures.push({ bare, value });
  }
  await Promise.all([client.end(), superuser.end(), pool.close(), db.close()]);
  printBenchResult({
    bench: "rollup",
    value: median(figures.map((figure) => figure.value)),
    unit: "samples/s",
    bare: median(figures.map((figure) => figure.bare)),
    rounds,
    pods: hosts * podsPerHost,
    samples,
  });
}

await main();
