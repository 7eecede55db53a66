import { newId } from "@cloudpods/shared/ids";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { makePerson, makeTenant, send, type Person } from "../../../test/support/people.ts";
import { insertFleet, insertPlacedPods } from "../../../test/support/placement-fleet.ts";
import { makePod } from "../../../test/support/pods.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp, type TestApp } from "../../../test/support/test-app.ts";
import { seedPlans } from "../plans/seed-plans.ts";
import { openDatabase, type Database, type Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import { registerOverviewRoutes } from "./overview.http.ts";
import type { Overview } from "./overview-views.ts";
import { readOverview } from "./read-overview.ts";

let db: TestDatabase;
let app: TestApp["app"];
let operator: Person;
beforeEach(async () => {
  db = await createTestDatabase();
  ({ app } = buildTestApp(db, {
    register(routes) {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerOverviewRoutes(routes);
    },
  }));
  operator = await makePerson(db, app, { platformRole: "OPERATOR" });
});
afterEach(() => db.close());

async function overview(): Promise<Overview> {
  const answer = await send(app, "GET", "/api/ops/platform-overview", { headers: operator.headers });
  expect(answer.status, answer.text).toBe(200);
  return answer.json as unknown as Overview;
}

/** Time goes on while a test runs: fifty seconds more or less. */
const about = (seconds: number): unknown => expect.closeTo(seconds, -2);

const run = (statement: Sql) => db.system.execute(statement);

describe("GET /api/ops/platform-overview", () => {
  test("invents nothing on an empty platform", async () => {
    expect(await overview()).toMatchObject({
      coreNodes: [],
      conditions: [],
      queues: { tasks: [], commands: [], notifications: [], deadLetters: [] },
      provisioning: {
        succeeded: 0,
        failed: 0,
        successRate: null,
        types: [],
        recentFailures: [],
        ordersWithoutPlace: 0,
      },
      metering: {
        hosts: 0,
        lag: null,
        behind: [],
        spools: { total: 0, max: 0, oldestAt: null },
        lastVerification: null,
      },
      security: {
        users: { active: 1, operators: 1, administrators: 0, liveSessions: 1 },
        certificates: { authorityExpiresAt: null, expiring: [], revokedNodes: [] },
      },
      capacity: [],
      pods: { byStatus: [], onSilentHosts: 0, powerDrift: 0 },
      orphans: { unmanaged: 0, misplaced: 0, containers: [] },
      backups: { running: 0, succeeded: 0, failed: 0, lastSuccessAt: null, due: 0, oldestDueAt: null, damaged: 0 },
      drains: { running: [], incomplete: [] },
      findings: { byKind: [], dismissed: 0, held: false, newest: [] },
      controlPlane: {
        replicas: [],
        fleetEpoch: "1",
        holdsOrders: false,
        database: { synchronous_commit: expect.any(String) },
      },
    });
  });

  test("shows hosts that are being emptied, how far they are, and those of the last day that were not", async () => {
    const [emptied, kept, longAgo] = await insertFleet(db.system, {
      nodes: 3,
      cores: 4,
      memoryMb: 8_192,
      diskGb: 100,
    });
    const tenantId = await makeTenant(db);
    const pods = [];
    for (const hostname of ["a", "b", "c"]) pods.push(await makePod(db, tenantId, { hostname }));
    const [running, incomplete, old] = [newId(), newId(), newId()];
    await run(sql`
      INSERT INTO node_drains (id, node_id, kind, state, reason, requested_by, request_id, max_parallel, deadline_at, on_no_capacity, on_deadline, outcome, finished_at)
      VALUES (${running}, ${emptied}, 'drain', 'moving', 'new memory', 'user:x', 'r', 2, now() + interval '1 hour', 'fail', 'leave', NULL, NULL),
        (${incomplete}, ${kept}, 'evacuation', 'incomplete', 'it burnt', 'user:x', 'r', 2, now(), 'fail', 'leave', 'without a backup', now() - interval '23 hours'),
        (${old}, ${longAgo}, 'drain', 'incomplete', 'x', 'user:x', 'r', 2, now(), 'fail', 'leave', 'x', now() - interval '25 hours')`);
    for (const [index, state] of ["moved", "moving", "blocked"].entries())
      await run(
        sql`INSERT INTO node_drain_pods (drain_id, tenant_id, pod_id, state) VALUES (${running}, ${tenantId}, ${pods[index]?.id ?? ""}, ${state})`,
      );
    const { drains } = await overview();
    expect(drains.running).toMatchObject([
      { id: running, nodeId: emptied, kind: "drain", reason: "new memory", pods: 3, done: 1, moving: 1, stuck: 1 },
    ]);
    expect(drains.incomplete).toMatchObject([
      { id: incomplete, kind: "evacuation", outcome: "without a backup", pods: 0 },
    ]);
  });

  test("shows hosts by role, the worst first, and what room they have", async () => {
    const hypervisors = await insertFleet(db.system, { nodes: 25, cores: 4, memoryMb: 8_192, diskGb: 100 }, "pve");
    const [mail] = await insertFleet(db.system, { nodes: 1, cores: 4, memoryMb: 8_192, diskGb: 100 }, "mail");
    const [silent, troubled, gone] = [hypervisors[20], hypervisors[23], hypervisors[24]];
    await run(sql`UPDATE nodes SET role = 'mail' WHERE id = ${mail}`);
    await run(sql`UPDATE node_status SET state = 'offline' WHERE node_id = ${silent}`);
    await run(sql`UPDATE nodes SET removed_at = now() WHERE id = ${gone}`);
    await run(sql`INSERT INTO node_conditions (node_id, kind, message) VALUES (${troubled}, 'NoQuorum', 'no')`);
    await db.system.transaction((tx) => seedPlans(tx));
    const { coreNodes, conditions, capacity } = await overview();
    const [first, second] = coreNodes;
    expect(first).toMatchObject({ role: "hypervisor", total: 24 });
    expect(first?.states).toEqual([
      { state: "offline", nodes: 1 },
      { state: "online", nodes: 23 },
    ]);
    expect(first?.nodes).toHaveLength(20);
    expect(first?.nodes.slice(0, 3)).toMatchObject([
      { id: silent, state: "offline", conditions: [] },
      { id: troubled, state: "online", conditions: ["NoQuorum"] },
      { name: "pve-00001" },
    ]);
    expect(second).toMatchObject({ role: "mail", total: 1, nodes: [{ id: mail, region: "eu" }] });
    expect(conditions).toMatchObject([{ kind: "NoQuorum", nodes: 1 }]);
    expect(capacity).toMatchObject([
      { region: "eu", hosts: 24, hostsOpen: 23, cpuCores: { allocatable: 96, free: 92 } },
    ]);
    expect(capacity[0]?.headroom.find(({ planCode }) => planCode === "BUSINESS")?.pods).toBeGreaterThan(0);
  });

  test("shows queues, the work of the last day and its failures", async () => {
    const tenantId = await makeTenant(db);
    const [open, failed, old] = [
      await makePod(db, tenantId, { hostname: "open" }),
      await makePod(db, tenantId, { hostname: "failed" }),
      await makePod(db, tenantId, { hostname: "old" }),
    ];
    const [nodeId] = await insertFleet(db.system, { nodes: 1, cores: 4, memoryMb: 8_192, diskGb: 100 });
    const end = sql`now(), created_at = now() - interval '30 seconds'`;
    await run(
      sql`UPDATE cloud_pod_provisioning_tasks SET state = 'waiting', finished_at = NULL, created_at = now() - interval '1 hour' WHERE id = ${open.taskId}`,
    );
    await run(
      sql`UPDATE cloud_pod_provisioning_tasks SET error_code = 'TEMPLATE_MISSING', finished_at = ${end} WHERE id = ${failed.taskId}`,
    );
    await run(
      sql`UPDATE cloud_pod_provisioning_tasks SET finished_at = now() - interval '25 hours' WHERE id = ${old.taskId}`,
    );
    await run(sql`
      INSERT INTO cloud_pod_provisioning_tasks (id, tenant_id, pod_id, type, state, step, deadline_at, requested_by, created_at, finished_at)
      SELECT gen_random_uuid(), ${tenantId}, ${old.id}, 'create', 'succeeded', 'done', now(), 'test', now() - n * interval '10 seconds', now()
      FROM generate_series(1, 3) AS n`);
    await run(sql`
      INSERT INTO node_commands (id, node_id, op, command, fleet_epoch, generation, revision, created_at)
      VALUES (${newId()}, ${nodeId}, 'inspect', '{}', 1, 1, 1, now() - interval '90 seconds')`);
    await run(sql`
      INSERT INTO notifications (id, tenant_id, channel, recipient, dedupe_key, payload, attempts, dead_at, last_error_code) VALUES
        (${newId()}, ${tenantId}, 'email', 'a@example.test', 'x', '{}', 2, NULL, 'ECONNREFUSED'),
        (${newId()}, ${tenantId}, 'webhook', 'https://example.test', 'x', '{}', 9, now(), 'HTTP_500')`);
    await run(
      sql`INSERT INTO telemetry_dead_letters (id, topic, reason, payload) VALUES (${newId()}, 'x', 'NOT_PROTOBUF', '')`,
    );
    await run(
      sql`INSERT INTO placement_failures (id, tenant_id, request, verdicts, summary) VALUES (${newId()}, ${tenantId}, '{}', '{}', '')`,
    );
    const { queues, provisioning } = await overview();
    expect(queues.tasks).toEqual([{ type: "create", state: "waiting", tasks: 1, oldestSeconds: about(3_600) }]);
    expect(queues.commands).toEqual([{ state: "pending", commands: 1, oldestSeconds: about(90) }]);
    expect(queues.notifications).toEqual([{ channel: "email", waiting: 1, retried: 1, oldestSeconds: about(0) }]);
    expect(queues.deadLetters).toMatchObject([
      { kind: "message", reason: "NOT_PROTOBUF", letters: 1 },
      { kind: "notification", reason: "HTTP_500", letters: 1 },
    ]);
    expect(provisioning).toMatchObject({
      succeeded: 3,
      failed: 1,
      cancelled: 0,
      successRate: 0.75,
      ordersWithoutPlace: 1,
    });
    expect(provisioning.types).toMatchObject([{ type: "create", p50Seconds: 20, p95Seconds: 29 }]);
    expect(provisioning.recentFailures).toMatchObject([
      {
        taskId: failed.taskId,
        vmid: failed.vmid,
        tenantId,
        step: "create-container",
        errorCode: "TEMPLATE_MISSING",
        node: null,
      },
    ]);
  });

  test("shows how far samples are behind and what waits to be rolled up", async () => {
    const [late, punctual, silent] = await insertFleet(db.system, { nodes: 4, cores: 4, memoryMb: 8_192, diskGb: 100 });
    await run(
      sql`UPDATE node_status SET spool_depth = 7, spool_oldest_at = now() - interval '10 minutes' WHERE node_id = ${late}`,
    );
    await run(sql`UPDATE node_status SET state = 'lost' WHERE node_id = ${silent}`);
    await run(sql`
      INSERT INTO node_spools (node_id, spool_id, complete_until, refused_since) VALUES
        (${late}, gen_random_uuid(), now() - interval '600 seconds', NULL), (${late}, gen_random_uuid(), now() - interval '2 days', NULL),
        (${late}, gen_random_uuid(), now(), now()), (${punctual}, gen_random_uuid(), now() - interval '60 seconds', NULL),
        (${silent}, gen_random_uuid(), now() - interval '1 day', NULL)`);
    await run(sql`
      INSERT INTO usage_dirty_hours (hour_start, node_id)
      SELECT date_trunc('hour', now()) - h * interval '1 hour', ${late}::uuid FROM unnest(ARRAY[0, 2, 2, 5]) AS h`);
    const { metering } = await overview();
    expect(metering).toMatchObject({
      hosts: 4,
      neverReported: 1,
      lag: { p50Seconds: about(60), p95Seconds: about(600), maxSeconds: about(600) },
      spools: { total: 7, max: 7 },
      dirtyHours: { waiting: 2 },
    });
    expect(metering.behind.map(({ id, lagSeconds }) => [id, lagSeconds])).toEqual([
      [silent, about(86_400)],
      [late, about(600)],
    ]);
  });

  test("shows pods, containers that are nobody's, weak certificates and dead replicas", async () => {
    const tenantId = await makeTenant(db);
    const nodeIds = await insertFleet(db.system, { nodes: 2, cores: 8, memoryMb: 8_192, diskGb: 100 });
    const [quiet, other] = nodeIds;
    await insertPlacedPods(db.system, nodeIds, [tenantId], 2);
    await run(sql`
      UPDATE cloud_pods p SET node_id = c.node_id, storage = 'local', bridge = 'vmbr0', template = 'ct:9000', status = 'active',
        observed_power = CASE WHEN c.node_id = ${quiet} THEN 'stopped' ELSE 'running' END FROM node_claims c WHERE c.pod_id = p.id`);
    await run(sql`UPDATE node_status SET state = 'offline' WHERE node_id = ${quiet}`);
    await run(
      sql`UPDATE cloud_pods SET status = 'suspended' WHERE id = (SELECT id FROM cloud_pods WHERE node_id = ${other} LIMIT 1)`,
    );
    await run(sql`
      INSERT INTO unmanaged_containers (node_id, vmid, pod_id, observation) VALUES (${quiet}, 100, NULL, '{}'), (${quiet}, 101, ${newId()}, '{}')`);
    await run(sql`
      INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after, issued_at, revoked_at) VALUES
        ('1', ${quiet}, '', '', now(), now() + interval '20 days', now() - interval '1 day', now()),
        ('2', ${quiet}, '', '', now(), now() + interval '6 days', now(), NULL), ('3', ${other}, '', '', now(), now() + interval '30 days', now(), now())`);
    await run(sql`
      INSERT INTO control_plane_replicas (id, hostname, roles, started_at, seen_at) VALUES
        (${newId()}, 'cp-1', '{api}', now() - interval '2 hours', now()), (${newId()}, 'cp-2', '{worker}', now() - interval '1 hour', now() - interval '2 minutes')`);
    const found = await overview();
    expect(found.pods).toEqual({
      byStatus: [
        { status: "active", pods: 3 },
        { status: "suspended", pods: 1 },
      ],
      onSilentHosts: 2,
      powerDrift: 2,
    });
    expect(found.orphans).toMatchObject({
      unmanaged: 1,
      misplaced: 1,
      containers: [{ vmid: 101 }, { vmid: 100, podId: null }],
    });
    expect(found.security.certificates).toMatchObject({ expiring: [{ id: quiet }], revokedNodes: [{ id: other }] });
    expect(found.controlPlane.replicas).toMatchObject([
      { hostname: "cp-1", alive: true },
      { hostname: "cp-2", alive: false, roles: ["worker"] },
    ]);
  });
});

test("a pod that a hold stops is where it is wanted while it stands still, and only then", async () => {
  const tenantId = await makeTenant(db);
  const nodeIds = await insertFleet(db.system, { nodes: 1, cores: 8, memoryMb: 8_192, diskGb: 100 });
  await insertPlacedPods(db.system, nodeIds, [tenantId], 4);
  const ids = (await db.system.query<{ id: string }>(sql`SELECT id FROM cloud_pods ORDER BY id`)).map(({ id }) => id);
  const [stopped, running, slowed] = ids;
  await run(sql`
    UPDATE cloud_pods p SET node_id = c.node_id, storage = 'local', bridge = 'vmbr0', template = 'ct:9000', status = 'active',
      observed_power = CASE WHEN p.id IN (${stopped}, ${slowed}) THEN 'stopped' ELSE 'running' END FROM node_claims c WHERE c.pod_id = p.id`);
  const hold = (podId: string | undefined, kind: string, effect: string): Promise<number> =>
    run(sql`
      INSERT INTO cloud_pod_holds (id, tenant_id, pod_id, kind, effect, actor) VALUES (${newId()}, ${tenantId}, ${podId}, ${kind}, ${effect}, 'test')`);
  const drift = async (): Promise<number> => (await overview()).pods.powerDrift;
  expect(await drift()).toBe(2);
  await hold(stopped, "budget", "stop");
  await hold(slowed, "bandwidth", "throttle");
  expect(await drift()).toBe(1);
  await hold(running, "budget", "stop");
  await hold(running, "abuse", "suspend");
  expect(await drift()).toBe(2);
  await run(sql`UPDATE cloud_pod_holds SET until = now()`);
  expect(await drift()).toBe(2);
});

describe("the overview's figures", () => {
  /** A database whose transactions see a pod and a task come and a host go after their first question. */
  async function disturbed(isolate: boolean): Promise<Database> {
    const tenantId = await makeTenant(db);
    const [nodeId] = await insertFleet(db.system, { nodes: 1, cores: 4, memoryMb: 8_192, diskGb: 100 });
    let turn: Promise<unknown> = Promise.resolve();
    let asked = false;
    const disturb = async (): Promise<void> => {
      if (asked) return;
      asked = true;
      await makePod(db, tenantId, { hostname: "new" });
      await run(sql`UPDATE nodes SET removed_at = now() WHERE id = ${nodeId}`);
    };
    const inTurn = (tx: Transaction): Transaction => ({
      client: tx.client,
      execute: async (statement) => (isolate ? await tx.execute(statement) : 0),
      query<Row>(statement: Sql) {
        const answer = turn.then(async () => {
          const rows = await tx.query<Row>(statement);
          await disturb();
          return rows;
        });
        turn = answer;
        return answer;
      },
    });
    return { ...db.system, transaction: (work) => db.system.transaction((tx) => work(inTurn(tx))) };
  }

  const of = async (database: Database) => {
    const { worstNodes, snapshot, pods, provisioning } = await readOverview(database);
    return {
      worst: worstNodes.length,
      nodes: snapshot.nodes.length,
      pods: pods.total,
      tasks: provisioning.types.length,
    };
  };

  test("are of one instant", async () => {
    expect(await of(await disturbed(true))).toEqual({ worst: 1, nodes: 1, pods: 0, tasks: 0 });
  });

  test("negative control: without one snapshot they contradict each other", async () => {
    expect(await of(await disturbed(false))).toEqual({ worst: 0, nodes: 0, pods: 0, tasks: 1 });
  });

  test("need no second connection where there is none", async () => {
    const narrow = openDatabase({ url: db.systemUrl, applicationName: "test", connectionsMax: 1 });
    try {
      expect(await of(narrow)).toEqual({ worst: 0, nodes: 0, pods: 0, tasks: 0 });
    } finally {
      await narrow.close();
    }
  });
});
