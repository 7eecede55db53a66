import { z } from "zod";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { makePrivateKey } from "../../../node-agent/src/enrolment/certificate-request.ts";
import { smallInventory } from "../../../test/support/connected-agent.ts";
import {
  enrolHost,
  issuingDeps,
  joinRequest,
  makeJoinToken,
  renewRequest,
  type EnrolledHost,
} from "../../../test/support/enrolled-host.ts";
import { makePerson, send, type Person, type Sent } from "../../../test/support/people.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { buildTestApp } from "../../../test/support/test-app.ts";
import { until } from "../../../test/support/until.ts";
import type { App } from "../http/trail.ts";
import { openHints, type Hints } from "../platform/hints.ts";
import { createLog } from "../platform/log.ts";
import { sql } from "../platform/sql.ts";
import { rankNodes } from "../scheduling/rank-nodes.ts";
import { readSnapshot } from "../scheduling/read-snapshot.ts";
import { keptVerdict, verdictOf } from "../scheduling/verdict.ts";
import { registerSecurityRoutes } from "../security/security.http.ts";
import type { IssuingDeps } from "./node-certificates.ts";
import { lockNode } from "./change-node.ts";
import { endCordons } from "./end-cordons.ts";
import { registerNodeRoutes } from "./nodes.http.ts";
import { recordInventory } from "./record-inventory.ts";

let db: TestDatabase;
let deps: IssuingDeps;
let hints: Hints;
let app: App;
let operator: Person;

beforeAll(async () => {
  db = await createTestDatabase();
  deps = await issuingDeps(db.system);
  hints = openHints({ url: db.systemUrl, log: createLog({ level: "silent" }) });
  await hints.listening;
  ({ app } = buildTestApp(db, {
    register: (routes) => {
      registerSecurityRoutes(routes, { secureCookies: true });
      registerNodeRoutes(routes, { ...deps, hints });
    },
  }));
  operator = await makePerson(db, app, { platformRole: "OPERATOR" });
});
afterAll(async () => {
  await hints.close();
  await db.close();
});

const call = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Sent> =>
  send(app, method, path, { body, headers: { ...operator.headers, ...headers } });

async function namedHost(name: string): Promise<EnrolledHost> {
  const host = await enrolHost(db.system, deps, { name });
  await recordInventory(db.system, { nodeId: host.nodeId, epoch: 0n }, smallInventory(), { onAddress: async () => {} });
  return host;
}

describe("a cordon with an end", () => {
  test("opens the host by itself, says who and why, and is in the audit log", async () => {
    const host = await namedHost("pve-cordoned");
    const until = new Date(Date.now() + 3_600_000).toISOString();
    const past = await call("POST", "/api/nodes/pve-cordoned/cordon", {
      reason: "late",
      until: "2020-01-01T00:00:00Z",
    });
    expect(past).toMatchObject({ status: 422, json: { error: "CORDON_ENDS_IN_THE_PAST" } });
    const cordoned = await call("POST", "/api/nodes/pve-cordoned/cordon", { reason: "new memory", until });
    expect(cordoned.json).toMatchObject({
      schedulable: false,
      cordonedUntil: until,
      cordonedBy: `user:${operator.userId}`,
      cordonedByEmail: operator.email,
    });
    const request = { cores: 1, memoryMb: 512, diskGb: 4 };
    const snapshot = await readSnapshot(db.system);
    const mine = { ...snapshot, nodes: snapshot.nodes.filter((node) => node.id === host.nodeId) };
    const nobody = { podsByNode: new Map(), conflictingNodes: new Set<string>() };
    const online = { ...mine, nodes: mine.nodes.map((node) => ({ ...node, state: "online" })) };
    const verdict = verdictOf(rankNodes(request, online, nobody), undefined, keptVerdict);
    expect(verdict).toMatchObject({
      summary: "0 of 1 node: 1 cordoned",
      rejected: [{ node: "pve-cordoned", reason: "cordoned: new memory" }],
    });
    expect(await endCordons(db.system)).toEqual([]);
    await db.system.execute(sql`UPDATE nodes SET cordoned_until = now() - interval '1 s' WHERE id = ${host.nodeId}`);
    expect(await endCordons(db.system)).toEqual(["pve-cordoned"]);
    expect((await call("GET", "/api/nodes/pve-cordoned")).json).toMatchObject({
      schedulable: true,
      cordonedUntil: null,
      cordonedBy: null,
    });
    const [audited] = await db.system.query(
      sql`SELECT actor_kind, actor_id FROM audit_log WHERE target_id = ${host.nodeId} AND action = 'node.uncordon'`,
    );
    expect(audited).toEqual({ actor_kind: "system", actor_id: "cordons" });
  });

  test("keeps closed what is being emptied, and no other host with it", async () => {
    const draining = await namedHost("pve-emptied");
    const other = await namedHost("pve-reopened");
    await db.system.execute(sql`
      UPDATE nodes SET schedulable = false, cordon_reason = 'work', cordoned_at = now() - interval '1 h', cordoned_until = now() - interval '1 s'
      WHERE id IN (${draining.nodeId}, ${other.nodeId})`);
    const drainId = newId();
    const waiting = sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    // It begins in the very moment in which its cordon ends.
    const { opening } = await db.system.transaction(async (tx) => {
      await lockNode(tx, draining.nodeId);
      const ending = endCordons(db.system);
      await until("the cordon that ends", async () => (await db.system.query(waiting)).length > 0);
      await tx.execute(sql`
        INSERT INTO node_drains (id, node_id, kind, reason, requested_by, request_id, max_parallel, deadline_at, on_no_capacity, on_deadline)
        VALUES (${drainId}, ${draining.nodeId}, 'drain', 'work', 'test', 'test', 1, now() + interval '1 h', 'fail', 'leave')`);
      return { opening: ending };
    });
    expect(await opening).toEqual(["pve-reopened"]);
    const end = new Date(Date.now() + 3_600_000).toISOString();
    expect(await call("POST", "/api/nodes/pve-emptied/cordon", { reason: "longer", until: end })).toMatchObject({
      status: 409,
      json: { error: "NODE_DRAINING" },
    });
    await db.system.execute(
      sql`UPDATE node_drains SET state = 'incomplete', finished_at = now() WHERE id = ${drainId}`,
    );
    expect(await endCordons(db.system)).toEqual(["pve-emptied"]);
  });
});

describe("joining by the public door", () => {
  test("a token is shown once, lets a host in and the host renew", async () => {
    const made = await call(
      "POST",
      "/api/nodes/join-tokens",
      { name: "pve-http", region: "fra" },
      { "idempotency-key": "token-1" },
    );
    expect(made.status).toBe(201);
    const token = String(made.json["token"]);
    const again = await call(
      "POST",
      "/api/nodes/join-tokens",
      { name: "pve-http", region: "fra" },
      { "idempotency-key": "token-1" },
    );
    expect(again).toMatchObject({ status: 409, json: { error: "IDEMPOTENCY_RESULT_NOT_REPLAYABLE" } });
    const keyPem = makePrivateKey();
    const joined = await send(app, "POST", "/api/nodes/enroll", { body: joinRequest(token, keyPem) });
    expect(joined).toMatchObject({
      status: 200,
      json: { gatewayAddress: "127.0.0.1:7443", brokerUrl: "mqtts://127.0.0.1:8883" },
    });
    const nodeId = String(joined.json["nodeId"]);
    const challenge = await send(app, "GET", `/api/nodes/renew/challenge?node=${nodeId}`);
    const body = renewRequest(nodeId, String(challenge.json["nonce"]), makePrivateKey(), keyPem);
    expect(await send(app, "POST", "/api/nodes/renew", { body })).toMatchObject({ status: 200, json: { nodeId } });
    expect(await send(app, "POST", "/api/nodes/renew", { body })).toMatchObject({
      status: 401,
      json: { error: "CHALLENGE_INVALID" },
    });
    const list = await call("GET", "/api/nodes/join-tokens");
    expect(list.text).toContain(nodeId);
    expect(list.text).not.toContain(token.split(".")[2]);
    const [stored] = await db.system.query<{ text: string }>(
      sql`SELECT (SELECT json_agg(t)::text FROM join_tokens t) || (SELECT json_agg(i)::text FROM idempotency_keys i) AS text`,
    );
    expect(stored?.text).not.toContain(token.split(".")[2]);
  });

  test("who takes over an identity has the connections of the former machine looked at", async () => {
    const former = await namedHost("pve-former");
    const token = await makeJoinToken(db.system, deps, { name: "pve-former", replacesNode: former.nodeId });
    const looked: string[] = [];
    const stopListening = hints.on("node_sessions", (nodeId) => looked.push(nodeId));
    const joined = await send(app, "POST", "/api/nodes/enroll", { body: joinRequest(token, makePrivateKey()) });
    expect(joined).toMatchObject({ status: 200, json: { nodeId: former.nodeId } });
    await until("the hint", () => looked.includes(former.nodeId));
    stopListening();
  });

  test("a revoked token lets nobody in, a used one cannot be revoked", async () => {
    const made = await call("POST", "/api/nodes/join-tokens", { name: "pve-revoked", region: "fra" });
    const path = `/api/nodes/join-tokens/${String(made.json["id"])}`;
    expect((await call("DELETE", path)).status).toBe(204);
    const refused = await send(app, "POST", "/api/nodes/enroll", {
      body: joinRequest(String(made.json["token"]), makePrivateKey()),
    });
    expect(refused).toMatchObject({ status: 401, json: { error: "JOIN_TOKEN_REVOKED" } });
    for (const name of ["enroll", "Upper", "019a0000-0000-7000-8000-000000000001"]) {
      expect((await call("POST", "/api/nodes/join-tokens", { name, region: "fra" })).status).toBe(422);
    }
  });
});

describe("hosts", () => {
  test("keep what people chose, also when they chose nothing", async () => {
    const host = await namedHost("pve-chosen");
    const seeInventory = () =>
      recordInventory(db.system, { nodeId: host.nodeId, epoch: 0n }, smallInventory(), { onAddress: async () => {} });
    const choose = async (body: object) => {
      const { headers } = await call("GET", "/api/nodes/pve-chosen");
      const answer = await call("PUT", "/api/nodes/pve-chosen", body, { "if-match": headers.get("etag") ?? "" });
      expect(answer.status).toBe(200);
    };
    await choose({ templateVmid: null });
    await seeInventory();
    expect((await call("GET", "/api/nodes/pve-chosen")).json).toMatchObject({
      defaultStorage: "local-lvm",
      templateVmid: null,
    });
    await choose({ defaultStorage: null });
    await seeInventory();
    expect((await call("GET", "/api/nodes/pve-chosen")).json).toMatchObject({
      defaultStorage: null,
      templateVmid: null,
    });
  });

  test("are for operators only", async () => {
    const host = await namedHost("pve-private");
    const person = await makePerson(db, app);
    const paths = ["/api/nodes", `/api/nodes/${host.nodeId}`, "/api/nodes/unmanaged", "/api/nodes/join-tokens"];
    for (const path of paths) {
      expect((await send(app, "GET", path)).status).toBe(401);
      expect((await send(app, "GET", path, { headers: person.headers })).status).toBe(403);
    }
  });

  test("are found by name and id, listed in pages, and shown with what they have", async () => {
    const host = await namedHost("pve-shown");
    const byName = await call("GET", "/api/nodes/pve-shown");
    expect(byName).toMatchObject({
      status: 200,
      json: {
        id: host.nodeId,
        state: "enrolled",
        defaultStorage: "local-lvm",
        storages: [{ name: "local-lvm", freeGb: 500 }],
        pods: [],
        certificateExpiresAt: expect.any(String),
      },
    });
    expect((await call("GET", `/api/nodes/${host.nodeId}`)).json).toEqual(byName.json);
    expect((await call("GET", "/api/nodes/pve-nowhere")).json["error"]).toBe("NODE_NOT_FOUND");
    const page = z.object({ data: z.array(z.object({ name: z.string() })), nextCursor: z.string().nullable() });
    const names: string[] = [];
    for (let query = "?limit=1"; query !== "";) {
      const { data, nextCursor } = page.parse((await call("GET", `/api/nodes${query}`)).json);
      names.push(...data.map((node) => node.name));
      query = nextCursor === null ? "" : `?limit=1&cursor=${nextCursor}`;
    }
    expect(new Set(names).size).toBe(names.length);
    expect(names).toContain("pve-shown");
  });

  test("are changed under their version, with history and audit", async () => {
    const host = await namedHost("pve-changed");
    const changed = await call(
      "PUT",
      "/api/nodes/pve-changed",
      { cpuOvercommit: 2.5, memoryReservedMb: 1_024, labels: { rack: "a" }, maintenanceNote: "soon" },
      { "if-match": '"1"' },
    );
    expect(changed).toMatchObject({
      status: 200,
      json: {
        version: 2,
        labels: { rack: "a" },
        maintenanceNote: "soon",
        cpu: { overcommit: "2.50" },
        memoryMb: { reserved: 1_024 },
      },
    });
    expect(changed.headers.get("etag")).toBe('"2"');
    expect((await call("PUT", "/api/nodes/pve-changed", { maintenanceNote: null }, { "if-match": '"1"' })).status).toBe(
      412,
    );
    expect((await call("PUT", "/api/nodes/pve-changed", { maintenanceNote: null })).json).toMatchObject({
      maintenanceNote: null,
      labels: { rack: "a" },
    });
    expect((await call("PUT", "/api/nodes/pve-changed", { defaultStorage: "nowhere" })).json["error"]).toBe(
      "STORAGE_NOT_ON_NODE",
    );
    expect(await call("PUT", "/api/nodes/pve-changed", { backupStorage: "local-lvm" })).toMatchObject({
      status: 422,
      json: { error: "STORAGE_NOT_ON_NODE", errors: [{ pointer: "/backupStorage" }] },
    });
    await db.system.execute(sql`UPDATE storages SET holds_backups = true WHERE node_id = ${host.nodeId}`);
    for (const backupStorage of ["local-lvm", null])
      expect((await call("PUT", "/api/nodes/pve-changed", { backupStorage })).json).toMatchObject({ backupStorage });
    expect((await call("PUT", "/api/nodes/pve-changed", { unknown: 1 })).status).toBe(422);
    expect((await call("POST", "/api/nodes/pve-changed/cordon", {})).status).toBe(422);
    expect((await call("POST", "/api/nodes/pve-changed/cordon", { reason: "disk" })).json).toMatchObject({
      schedulable: false,
      cordonReason: "disk",
    });
    expect((await call("POST", "/api/nodes/pve-changed/uncordon", {})).json).toMatchObject({
      schedulable: true,
      cordonReason: null,
      cordonedAt: null,
    });
    const events = await call("GET", "/api/nodes/pve-changed/events?limit=2");
    expect(events.json).toMatchObject({
      data: [{ kind: "UNCORDONED" }, { kind: "CORDONED", message: "disk" }],
      nextCursor: expect.any(String),
    });
    const audit = await db.system.query<{ action: string }>(
      sql`SELECT action FROM audit_log WHERE target_id = ${host.nodeId} ORDER BY id`,
    );
    expect(audit.map((row) => row.action)).toEqual([
      "node.enrol",
      "node.change",
      "node.change",
      "node.change",
      "node.change",
      "node.cordon",
      "node.uncordon",
    ]);
  });

  test("show their measurements", async () => {
    const host = await namedHost("pve-measured");
    await db.system.execute(
      sql`INSERT INTO node_samples VALUES (${host.nodeId}, now(), 1250, 87, 65536, 30000), (${host.nodeId}, now() - interval '2 hours', 1, 1, 1, 1)`,
    );
    const samples = await call("GET", "/api/nodes/pve-measured/samples");
    expect(samples.json).toMatchObject({
      data: [{ cpuBusyBasisPoints: 1_250, load1Centi: 87, memoryAvailableMb: 30_000 }],
    });
  });

  test("show all measurements of three days, up to the newest", async () => {
    const host = await namedHost("pve-long-measured");
    await db.system.execute(sql`
      INSERT INTO node_samples SELECT ${host.nodeId}::uuid, now() - minute * interval '1 minute', minute, 1, 1, 1 FROM generate_series(0, 4300) AS minute`);
    const { json } = await call("GET", "/api/nodes/pve-long-measured/samples?hours=72");
    const samples = json["data"] as { cpuBusyBasisPoints: number }[];
    expect(samples).toHaveLength(4_301);
    expect([samples[0]?.cpuBusyBasisPoints, samples.at(-1)?.cpuBusyBasisPoints]).toEqual([4_300, 0]);
  });

  test("are found after they were removed when their state is asked for, one page after the other, and by id", async () => {
    const removed: string[] = [];
    for (let life = 0; life < 2; life++) {
      removed.push((await namedHost("pve-twice")).nodeId);
      expect((await call("DELETE", "/api/nodes/pve-twice")).status).toBe(200);
    }
    const pages: unknown[] = [];
    for (let at: string | undefined = ""; at !== undefined;) {
      const page = await call("GET", `/api/nodes?state=removed&limit=1${at}`);
      const { data, nextCursor } = page.json as { data: unknown[]; nextCursor: string | null };
      pages.push(...data);
      at = nextCursor === null ? undefined : `&cursor=${nextCursor}`;
    }
    for (const id of removed) {
      const known = { id, name: "pve-twice", state: "removed", removedAt: expect.any(String) as string };
      expect(pages).toContainEqual(expect.objectContaining(known));
      expect((await call("GET", `/api/nodes/${id}`)).json).toMatchObject(known);
    }
    expect((await call("GET", "/api/nodes?limit=200")).text).not.toContain("pve-twice");
  });

  test("are removed only when empty; then the name is free and the room is gone", async () => {
    const host = await namedHost("pve-removed");
    await db.system.execute(
      sql`UPDATE node_capacity SET cpu_total = 8, memory_total_mb = 1000 WHERE node_id = ${host.nodeId}`,
    );
    const [tenant] = await db.system.query<{ id: string }>(
      sql`INSERT INTO tenants (id, slug, name) VALUES (gen_random_uuid(), 'holder', 'Holder') RETURNING id`,
    );
    const [pod] = await db.system.query<{ id: string }>(sql`
      INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, status, node_id, cores, memory_mb, disk_gb, storage, bridge, template, mac)
      VALUES (gen_random_uuid(), ${tenant?.id ?? ""}, next_vmid(), 'p', 'p', 'local', 'active', ${host.nodeId}, 1, 512, 4, 'local-lvm', 'vmbr0', 'ct:9000', 'BC:24:11:00:00:09') RETURNING id`);
    expect((await call("DELETE", "/api/nodes/pve-removed")).json).toMatchObject({
      error: "NODE_NOT_EMPTY",
      details: { pods: 1, claims: 0 },
    });
    await db.system.execute(sql`UPDATE cloud_pods SET status = 'deleted' WHERE id = ${pod?.id ?? ""}`);
    expect((await call("DELETE", "/api/nodes/pve-removed")).status).toBe(200);
    expect((await call("GET", "/api/nodes/pve-removed")).status).toBe(404);
    expect((await call("GET", `/api/nodes/${host.nodeId}`)).json).toMatchObject({
      state: "removed",
      removedAt: expect.any(String),
    });
    expect((await call("POST", `/api/nodes/${host.nodeId}/cordon`, { reason: "late" })).status).toBe(404);
    expect((await call("DELETE", `/api/nodes/${host.nodeId}`)).status).toBe(404);
    // An order that planned before the removal finds no room.
    await expect(
      db.system.execute(sql`UPDATE node_capacity SET cpu_allocated = 1 WHERE node_id = ${host.nodeId}`),
    ).rejects.toMatchObject({ code: "CP001" });
    await namedHost("pve-removed");
  });
});
