import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newId } from "@cloudpods/shared/ids";
import { registerOverviewRoutes } from "../../control-plane/src/ops/overview.http.ts";
import { seedPlans } from "../../control-plane/src/plans/seed-plans.ts";
import { openDatabase, type Database } from "../../control-plane/src/platform/database.ts";
import { startEmbeddedPostgres } from "../../control-plane/src/platform/embedded-postgres.ts";
import { createLogins, migrate } from "../../control-plane/src/platform/migrate.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { registerSecurityRoutes } from "../../control-plane/src/security/security.http.ts";
import { makePerson } from "../support/people.ts";
import { insertFleet, insertPlacedPods, insertTenants } from "../support/placement-fleet.ts";
import { buildTestApp } from "../support/test-app.ts";
import { printBenchResult } from "./bench-result.ts";

/**
 * The whole overview as a request: admission, one snapshot of the database, headroom of every plan, JSON. 1,000
 * hosts, 50,000 pods with a week of backups, a day of 5,000 tasks, drains, findings and holds. Beside it the bare engine: `SELECT count(*)` of each table that the
 * overview reads, in one transaction on one connection.
 */
const nodes = 1_000;
const podsOfNode = 50;
const tasksOfDay = 5_000;
const backupsOfPod = 7;
const openFindings = 2_000;
const resolvedFindings = 20_000;
const openHolds = 1_000;
const endedHolds = 20_000;
const runningDrains = 5;
const endedDrains = 500;
const podsOfDrain = 50;
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 300);
const warmUp = 20;
const countedTables = [
  "nodes",
  "node_status",
  "node_conditions",
  "node_capacity",
  "node_storages",
  "node_templates",
  "storages",
  "cloud_pods",
  "cloud_pod_plans",
  "cloud_pod_backups",
  "cloud_pod_backup_policies",
  "cloud_pod_provisioning_tasks",
  "node_commands",
  "notifications",
  "telemetry_dead_letters",
  "usage_rejected_samples",
  "placement_failures",
  "node_spools",
  "node_spool_gaps",
  "usage_dirty_hours",
  "usage_dirty_days",
  "usage_dirty_months",
  "usage_hours",
  "usage_verifications",
  "users",
  "sessions",
  "api_tokens",
  "login_throttles",
  "node_certificates",
  "audit_seals",
  "unmanaged_containers",
  "node_findings",
  "cloud_pod_holds",
  "node_drains",
  "node_drain_pods",
  "audit_proof",
  "control_plane_replicas",
];

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-bench-pg-"));
  const server = await startEmbeddedPostgres({ directory });
  try {
    const logins = await createLogins(server.superuserUrl, "bench");
    await migrate(logins.systemUrl, logins.apiUrl);
    const system = openDatabase({ url: logins.systemUrl, applicationName: "bench", connectionsMax: 4 });
    const api = openDatabase({ url: logins.apiUrl, applicationName: "bench", connectionsMax: 1 });
    try {
      await measure(system, api);
    } finally {
      await Promise.all([system.close(), api.close()]);
    }
  } finally {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

async function measure(system: Database, api: Database): Promise<void> {
  const nodeIds = await insertFleet(system, { nodes, cores: 128, memoryMb: 131_072, diskGb: 4_000 });
  const tenantIds = await insertTenants(system, 2_000);
  await insertPlacedPods(system, nodeIds, tenantIds, podsOfNode);
  await system.transaction((tx) => seedPlans(tx));
  await fillHistory(system);
  await fillBackups(system);
  await fillFindings(system);
  await fillHolds(system);
  await fillDrains(system);
  // Inventories touch every pod each minute: a table between two of its vacuums, no page of which counts as seen by all, and so it stays.
  await system.execute(sql`ALTER TABLE cloud_pods SET (autovacuum_enabled = off)`);
  for (let minute = 0; minute < 3; minute++) {
    await system.execute(sql`VACUUM ANALYZE`);
    await system.execute(sql`UPDATE cloud_pods SET observed_at = now()`);
  }
  const { app } = buildTestApp(
    { system, api },
    {
      register(routes) {
        registerSecurityRoutes(routes, { secureCookies: true });
        registerOverviewRoutes(routes);
      },
    },
  );
  const { headers } = await makePerson({ system }, app, { platformRole: "OPERATOR" });
  let bytes = 0;
  const askForOverview = async () => {
    const answer = await app.request("/api/ops/platform-overview", { headers });
    const text = await answer.text();
    if (answer.status !== 200) throw new Error(text);
    bytes = text.length;
  };
  const countTables = () =>
    system.transaction(async (tx) => {
      const counts = countedTables.map((table) => tx.query({ text: `SELECT count(*) FROM ${table}`, values: [] }));
      await Promise.all(counts);
    });
  const overview: number[] = [];
  const bare: number[] = [];
  // In turns, so that a machine that slows down slows both.
  for (let round = -warmUp; round < rounds; round++) {
    const timesMs = [await timed(askForOverview), await timed(countTables)] as const;
    if (round < 0) continue;
    overview.push(timesMs[0]);
    bare.push(timesMs[1]);
  }
  printBenchResult({
    bench: "overview",
    value: quantile(overview, 0.99),
    unit: "ms p99",
    bare: quantile(bare, 0.99),
    p50Ms: quantile(overview, 0.5),
    bareP50Ms: quantile(bare, 0.5),
    nodes,
    pods: nodes * podsOfNode,
    tasksOfDay,
    bytes,
    rounds,
  });
}

/** What a fleet in use has besides hosts and pods. */
async function fillHistory(db: Database): Promise<void> {
  await db.execute(sql`
    UPDATE cloud_pods p SET status = 'active', observed_power = 'running', observed_at = now(), node_id = c.node_id,
      storage = 'local', bridge = 'vmbr0', template = 'ct:9000' FROM node_claims c WHERE c.pod_id = p.id`);
  await db.execute(
    sql`UPDATE node_status SET last_heartbeat_at = now(), spool_depth = 3, spool_oldest_at = now() - interval '1 minute'`,
  );
  await db.execute(sql`
    INSERT INTO cloud_pod_provisioning_tasks (id, tenant_id, pod_id, type, state, step, deadline_at, requested_by, created_at, finished_at)
    SELECT gen_random_uuid(), tenant_id, id, (ARRAY['create', 'restart', 'resize', 'destroy'])[1 + n % 4],
      CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'succeeded' END, 'done', now(), 'bench', now() - n * interval '17 seconds' - interval '20 seconds',
      now() - n * interval '17 seconds' FROM (SELECT *, row_number() OVER () AS n FROM cloud_pods LIMIT ${tasksOfDay * 2}) AS pods`);
  await db.execute(sql`
    INSERT INTO cloud_pod_provisioning_tasks (id, tenant_id, pod_id, type, state, step, deadline_at, requested_by)
    SELECT gen_random_uuid(), tenant_id, id, 'create', 'waiting', 'await', now(), 'bench' FROM cloud_pods LIMIT 200`);
  await db.execute(sql`
    INSERT INTO node_commands (id, node_id, op, command, fleet_epoch, generation, revision, state, finished_at)
    SELECT gen_random_uuid(), node_id, 'ensure_power', '{}', 1, 1, 1, CASE WHEN n % 100 = 0 THEN 'running' ELSE 'succeeded' END,
      CASE WHEN n % 100 = 0 THEN NULL ELSE now() END FROM (SELECT node_id, row_number() OVER () AS n FROM cloud_pods LIMIT ${tasksOfDay}) AS pods`);
  await db.execute(sql`
    INSERT INTO node_spools (node_id, spool_id, contiguous_seq, complete_until)
    SELECT node_id, gen_random_uuid(), 1000, now() - interval '70 seconds' FROM node_status, generate_series(1, 2)`);
  await db.execute(sql`
    INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after, issued_at)
    SELECT gen_random_uuid(), node_id, '', repeat('x', 1000), issued_at, issued_at + interval '30 days', issued_at
    FROM (SELECT node_id, now() - n * interval '20 days' + interval '10 days' AS issued_at FROM node_status, generate_series(1, 10) AS n) AS certificates`);
  await db.execute(sql`
    INSERT INTO usage_dirty_hours (hour_start, node_id)
    SELECT date_trunc('hour', now()) - n % 3 * interval '1 hour', node_id FROM node_status, generate_series(1, 100) AS n`);
  await db.execute(sql`
    INSERT INTO users (id, email, password_hash) SELECT id, id || '@example.test', repeat('x', 100) FROM tenants`);
  await db.execute(sql`
    INSERT INTO sessions (id, user_id, token_sha256, idle_expires_at, expires_at)
    SELECT gen_random_uuid(), id, sha256(id::text::bytea), now() + interval '1 hour', now() + interval '1 hour' FROM users`);
  await db.execute(sql`
    INSERT INTO usage_rejected_samples (id, node_id, spool_no, seq, reason, sample)
    SELECT gen_random_uuid(), node_id, 1, 1, 'FUTURE', '{}' FROM node_status`);
  await db.execute(sql`
    INSERT INTO audit_log (id, actor_kind, action, target_type, chain_seq)
    SELECT gen_random_uuid(), 'system', 'pod.order', 'pod', n FROM generate_series(1, 100000) AS n`);
  await db.execute(sql`
    INSERT INTO unmanaged_containers (node_id, vmid, observation) SELECT node_id, 100, '{}' FROM node_status LIMIT 300`);
  await db.execute(sql`
    INSERT INTO control_plane_replicas (id, hostname, roles) VALUES (${newId()}, 'cp-1', '{api}'), (${newId()}, 'cp-2', '{worker}')`);
}

/** A daily backup of each pod for a week, spread over the day as their schedules are. */
async function fillBackups(db: Database): Promise<void> {
  await db.execute(sql`
    INSERT INTO cloud_pod_backup_policies (pod_id, tenant_id, enabled, every_hours, keep_last, keep_daily, keep_weekly, next_at)
    SELECT id, tenant_id, true, 24, 3, 7, 4, now() + random() * interval '1 day' FROM cloud_pods`);
  // Each day of them takes as long as a statement may.
  for (let day = 0; day < backupsOfPod; day++)
    await db.execute(sql`
      INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, size_bytes, generation, vmid,
        spec, started_at, finished_at, checked_at)
      SELECT gen_random_uuid(), tenant_id, id, node_id, storage_id, 'local', 'scheduled', 'snapshot', state,
        CASE WHEN state = 'available' THEN 'local:backup/vzdump-lxc-' || vmid || '-' || ${day}::integer END, 500000000, 1, vmid,
        '{}', finished_at - interval '40 seconds', finished_at, finished_at
      FROM (SELECT p.id, p.tenant_id, p.node_id, p.vmid, s.id AS storage_id, CASE WHEN random() < 0.005 THEN 'failed' ELSE 'available' END AS state,
          now() - (${day}::integer + random()) * interval '1 day' AS finished_at
        FROM cloud_pods p JOIN storages s ON s.node_id = p.node_id) AS backups`);
}

/** What hosts were found to have that they should not: most of it is long over. */
async function fillFindings(db: Database): Promise<void> {
  for (const [state, findings] of [
    ["open", openFindings],
    ["resolved", resolvedFindings],
  ] as const)
    await db.execute(sql`
      INSERT INTO node_findings (id, node_id, vmid, pod_id, kind, subject, evidence, offered, state, first_seen_at, last_seen_at, sightings, resolved_at)
      SELECT gen_random_uuid(), node_id, vmid, id, (ARRAY['power', 'drift', 'resized', 'lock', 'orphan', 'unmanaged'])[1 + n % 6], hostname, '{"power": "stopped"}',
        '{repair,dismiss}', ${state}, now() - n * interval '1 minute', now(), 3, CASE WHEN ${state} = 'resolved' THEN now() END
      FROM (SELECT *, row_number() OVER () AS n FROM cloud_pods LIMIT ${findings}) AS pods`);
  await db.execute(sql`
    INSERT INTO node_conditions (node_id, kind, message, since)
    SELECT node_id, (ARRAY['DiskPressure', 'MemoryPressure', 'ClockSkew', 'MeteringGap'])[1 + n % 4], 'since the morning', now() - n * interval '1 minute'
    FROM (SELECT node_id, row_number() OVER () AS n FROM node_status LIMIT 100) AS hosts`);
  await db.execute(
    sql`INSERT INTO usage_hours (hour_start) SELECT date_trunc('hour', now()) - n * interval '1 hour' FROM generate_series(1, 2160) AS n`,
  );
  await db.execute(sql`
    INSERT INTO usage_verifications (year_month, verified_at, findings_count, disagreements_count, findings)
    SELECT to_char(now(), 'YYYY-MM'), now() - n * interval '1 day', 0, 0, '[]' FROM generate_series(1, 90) AS n`);
}

/** Pods that are held back, and those that were. */
async function fillHolds(db: Database): Promise<void> {
  for (const [until, holds] of [
    [sql`NULL`, openHolds],
    [sql`now()`, endedHolds],
  ] as const)
    await db.execute(sql`
      INSERT INTO cloud_pod_holds (id, tenant_id, pod_id, kind, effect, actor, reason, since, until)
      SELECT gen_random_uuid(), tenant_id, id, (ARRAY['customer', 'budget', 'operator', 'bandwidth'])[1 + n % 4],
        (ARRAY['suspend', 'stop', 'suspend', 'throttle'])[1 + n % 4], 'bench', 'bench', now() - n * interval '1 minute', ${until}
      FROM (SELECT *, row_number() OVER () AS n FROM cloud_pods LIMIT ${holds}) AS pods`);
}

/** Hosts that are being emptied, and a year of those that were. */
async function fillDrains(db: Database): Promise<void> {
  await db.execute(sql`
    INSERT INTO node_drains (id, node_id, kind, state, reason, requested_by, request_id, max_parallel, deadline_at, on_no_capacity, on_deadline, started_at, finished_at)
    SELECT gen_random_uuid(), node_id, 'drain', CASE WHEN n <= ${runningDrains} THEN 'moving' WHEN n % 4 = 0 THEN 'incomplete' ELSE 'drained' END, 'bench',
      'bench', 'bench', 2, now() + interval '1 hour', 'partial', 'leave', now() - n * interval '16 hours',
      CASE WHEN n <= ${runningDrains} THEN NULL ELSE now() - n * interval '16 hours' + interval '1 hour' END
    FROM (SELECT node_id, row_number() OVER () AS n FROM node_status LIMIT ${runningDrains + endedDrains}) AS hosts`);
  await db.execute(sql`
    INSERT INTO node_drain_pods (drain_id, tenant_id, pod_id, state)
    SELECT d.id, p.tenant_id, p.id, (ARRAY['moved', 'moving', 'claimed', 'blocked'])[1 + p.vmid % 4]
    FROM node_drains d CROSS JOIN LATERAL (SELECT id, tenant_id, vmid FROM cloud_pods WHERE node_id = d.node_id LIMIT ${podsOfDrain}) AS p`);
}

/** How long the work takes, in ms. */
async function timed(work: () => Promise<void>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

await main();
