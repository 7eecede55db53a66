import { connect } from "node:tls";
import mqtt from "mqtt";
import { pino } from "pino";
import { Registry } from "prom-client";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { Heartbeat, NodePresence } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { nodeTopics } from "@cloudpods/shared/topics";
import {
  brokerTls,
  externalBrokerTls,
  hostTls,
  replicaTls,
  type BrokerSideTls,
} from "../../../test/support/broker-identities.ts";
import { freePort } from "../../../test/support/free-port.ts";
import { startMosquitto } from "../../../test/support/mosquitto.ts";
import { createTestDatabase, type TestDatabase } from "../../../test/support/postgres.ts";
import { publishingHost, type PublishingHost } from "../../../test/support/publishing-host.ts";
import { batchOf, payloadOf, seedFleet, type FleetNode } from "../../../test/support/telemetry-fleet.ts";
import { makeTestAuthority } from "../../../test/support/test-authority.ts";
import { until } from "../../../test/support/until.ts";
import { startBroker } from "../broker/start-broker.ts";
import { sql } from "../platform/sql.ts";
import { startIngest, type Ingest } from "./ingest.ts";

const log = pino({ level: "silent" });
const endMs = Math.floor(Date.now() / 60_000) * 60_000;

let authority: Awaited<ReturnType<typeof makeTestAuthority>>;
let db: TestDatabase;
let fleet: FleetNode[];
const cleanUps: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  authority = await makeTestAuthority();
  db = await createTestDatabase();
});
afterAll(() => db.close());
beforeEach(async () => {
  fleet = await seedFleet(db.system, { nodes: 2, podsPerNode: 3 });
});
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp();
});

const node = (index = 0) => fleet[index] ?? expect.fail("no node");

interface RunningBroker {
  readonly port: number;
  stop(): Promise<void>;
}

async function startEmbedded(port?: number): Promise<RunningBroker> {
  const broker = await startBroker({
    tls: await brokerTls(authority),
    host: "127.0.0.1",
    // One that nobody takes while the broker is away.
    port: port ?? (await freePort()),
    authorizeNode: async () => true,
    log,
    registry: new Registry(),
  });
  return { port: broker.port, stop: () => broker.close() };
}

const startExternal = async (port?: number): Promise<RunningBroker> =>
  startMosquitto(await externalBrokerTls(authority), port);

async function startReplica(port: number): Promise<Ingest & { registry: Registry }> {
  const replicaId = newId();
  const tls = await replicaTls(authority);
  const registry = new Registry();
  const ingest = startIngest({
    database: db.system,
    databaseUrl: db.systemUrl,
    mqttUrl: () => `mqtts://127.0.0.1:${port}`,
    tls: () => tls,
    replicaId,
    log,
    registry,
  });
  cleanUps.push(() => ingest.stop());
  return { ...ingest, registry };
}

async function startHost(port: number, index = 0, will?: Uint8Array): Promise<PublishingHost> {
  const host = await publishingHost(node(index).nodeId, port, await hostTls(authority, node(index).nodeId), will);
  cleanUps.push(() => host.close());
  return host;
}

function minutes(count: number, index = 0, spoolId = newId()) {
  return Array.from({ length: count }, (_, at) =>
    batchOf(node(index), spoolId, { from: at + 1 }, endMs - (count - at) * 60_000),
  );
}

async function storedSamples(): Promise<number> {
  const [row] = await db.system.query<{ n: number }>(
    sql`SELECT count(*)::integer AS n FROM cloud_pod_usage_samples JOIN node_spools USING (spool_no) WHERE node_id = ANY(${fleet.map((n) => n.nodeId)}::uuid[])`,
  );
  return row?.n ?? 0;
}

const subscribed = (ingest: Ingest) =>
  until("the subscription", () => ingest.mode() === "plain" || ingest.mode() === "shared");
const acknowledged = (...hosts: PublishingHost[]) =>
  until("all acknowledgements", () => hosts.every((host) => host.waiting() === 0));

describe.each([
  { name: "the embedded broker", start: startEmbedded, mode: "plain" },
  { name: "Mosquitto", start: startExternal, mode: "shared" },
])("over $name", ({ start, mode }) => {
  test("samples of two hosts are stored and acknowledged", async () => {
    const broker = await start();
    cleanUps.push(() => broker.stop());
    const ingest = await startReplica(broker.port);
    await subscribed(ingest);
    expect(ingest.mode()).toBe(mode);
    const hosts = [await startHost(broker.port, 0), await startHost(broker.port, 1)];
    hosts.forEach((host, index) => host.offer(...minutes(20, index)));
    await acknowledged(...hosts);
    expect(await storedSamples()).toBe(2 * 20 * 3);
  });

  test("everything arrives although the broker restarts in the middle", async () => {
    const first = await start();
    const ingest = await startReplica(first.port);
    await subscribed(ingest);
    const host = await startHost(first.port);
    const batches = minutes(30);
    host.offer(...batches.slice(0, 10));
    await acknowledged(host);
    await first.stop();
    host.offer(...batches.slice(10));
    const second = await start(first.port);
    cleanUps.push(() => second.stop());
    await acknowledged(host);
    expect(await storedSamples()).toBe(30 * 3);
  });

  test("a host cannot speak for another one", async () => {
    const broker = await start();
    cleanUps.push(() => broker.stop());
    const ingest = await startReplica(broker.port);
    await subscribed(ingest);
    const [intruder, honest] = [await startHost(broker.port, 0), await startHost(broker.port, 1)];
    const forged = payloadOf(batchOf(node(1), newId(), { from: 1 }, endMs));
    intruder.client.publish(nodeTopics(node(1).nodeId).samples, Buffer.from(forged), { qos: 1 });
    honest.offer(...minutes(1, 1));
    await acknowledged(honest);
    expect(await storedSamples()).toBe(3);
  });

  test("two replicas share the work, and the second goes on alone", async () => {
    const broker = await start();
    cleanUps.push(() => broker.stop());
    const first = await startReplica(broker.port);
    await subscribed(first);
    const second = await startReplica(broker.port);
    await until("the second replica", () => second.mode() === (mode === "plain" ? "standby" : "shared"));
    const host = await startHost(broker.port);
    const batches = minutes(40);
    host.offer(...batches.slice(0, 20));
    await acknowledged(host);
    await first.stop();
    await subscribed(second);
    host.offer(...batches.slice(20));
    await acknowledged(host);
    expect(await storedSamples()).toBe(40 * 3);
  });
});

test("Mosquitto with the files that are deployed lets no revoked host in", async () => {
  const [revoked, good] = [await hostTls(authority, node().nodeId), await hostTls(authority, node().nodeId)];
  const broker = await startMosquitto(await externalBrokerTls(authority, [revoked.serial]));
  cleanUps.push(() => broker.stop());
  const connects = (tls: BrokerSideTls) =>
    new Promise<boolean>((resolve) => {
      const { cert, key, ca } = tls;
      const client = new mqtt.MqttClient(
        () => connect({ host: "127.0.0.1", port: broker.port, cert, key, ca: [...ca] }),
        {
          protocolVersion: 4,
          reconnectPeriod: 0,
        },
      );
      const end = (isIn: boolean) => {
        client.end(true);
        resolve(isIn);
      };
      client.once("connect", () => end(true));
      client.on("error", () => end(false));
      client.once("close", () => end(false));
    });
  expect(await connects(good)).toBe(true);
  expect(await connects(revoked)).toBe(false);
});

describe("heartbeats", () => {
  beforeEach(async () => {
    await db.system.execute(sql`
      INSERT INTO node_certificates (serial, node_id, spki_sha256, pem, not_before, not_after, revoked_at) VALUES
        (${`old${node().nodeId}`}, ${node().nodeId}, '', '', now(), now(), now()), (${`new${node().nodeId}`}, ${node().nodeId}, '', '', now(), now(), NULL)`);
  });
  const beat = (changes: Partial<Heartbeat> = {}): Heartbeat => ({
    ...Heartbeat.decode(new Uint8Array()),
    wallClockMs: BigInt(Date.now()),
    cpuBusyBasisPoints: 1_234,
    load1Centi: 56,
    memoryTotalMb: 32_000,
    memoryAvailableMb: 16_000,
    runningContainers: 3,
    agentVersion: "1.2.3",
    certificateSerial: `new${node().nodeId}`,
    ...changes,
  });
  const send = (host: PublishingHost, heartbeat: Heartbeat) =>
    host.client.publishAsync(nodeTopics(node().nodeId).heartbeat, Buffer.from(Heartbeat.encode(heartbeat).finish()), {
      qos: 1,
    });
  const status = async () => {
    const [row] = await db.system.query(sql`SELECT * FROM node_status WHERE node_id = ${node().nodeId}`);
    return row ?? expect.fail("no status");
  };
  const conditions = async () => {
    const rows = await db.system.query<{ kind: string }>(
      sql`SELECT kind FROM node_conditions WHERE node_id = ${node().nodeId} ORDER BY kind`,
    );
    return rows.map((row) => row.kind);
  };

  async function startAll(will?: Uint8Array) {
    const broker = await startEmbedded();
    cleanUps.push(() => broker.stop());
    const ingest = await startReplica(broker.port);
    await subscribed(ingest);
    return { broker, ingest, host: await startHost(broker.port, 0, will) };
  }

  test("become the node's status and a row a minute", async () => {
    const { host } = await startAll();
    await send(host, beat({ spoolDepth: 7n, spoolOldestMs: BigInt(endMs) }));
    await until("the heartbeat", async () => (await status())["last_heartbeat_at"] !== null);
    expect(await status()).toMatchObject({
      cpu_busy_basis_points: 1_234,
      load1_centi: 56,
      memory_available_mb: 16_000,
      spool_depth: 7n,
      spool_oldest_at: new Date(endMs),
      running_containers: 3,
      agent_version: "1.2.3",
      presence_online: true,
    });
    await send(host, beat());
    await until("the next heartbeat", async () => (await status())["spool_depth"] === 0n);
    const samples = await db.system.query(sql`SELECT FROM node_samples WHERE node_id = ${node().nodeId}`);
    expect(samples.length).toBeLessThanOrEqual(2);
    expect(samples.length).toBeGreaterThanOrEqual(1);
  });

  test("raise conditions and clear them, and the history tells", async () => {
    const { host } = await startAll();
    const full = { name: "/var/lib/vz", totalBytes: 100n, availableBytes: 4n, responsive: true };
    await send(
      host,
      beat({
        wallClockMs: BigInt(Date.now() - 10_000),
        disciplinedMs: BigInt(Date.now()),
        synchronised: true,
        spoolDepth: 1n,
        spoolOldestMs: BigInt(Date.now() - 600_000),
        filesystems: [full],
      }),
    );
    await until("the conditions", async () => (await conditions()).length === 3);
    expect(await conditions()).toEqual(["ClockSkew", "StorageFull", "TelemetryLag"]);
    // It knows our clock: read late, it would seem slow otherwise.
    await send(host, beat({ disciplinedMs: BigInt(Date.now()), synchronised: true }));
    await until("the all-clear", async () => (await conditions()).length === 0);
    const events = await db.system.query<{ kind: string }>(
      sql`SELECT kind FROM node_events WHERE node_id = ${node().nodeId} ORDER BY id`,
    );
    expect(events.map((event) => event.kind).toSorted()).toEqual([
      ...Array(3).fill("CONDITION_CLEARED"),
      ...Array(3).fill("CONDITION_RAISED"),
    ]);
  });

  test("that are read late say nothing of the host's clock; those of a slow clock do, the second time", async () => {
    const { host } = await startAll();
    const old = () => BigInt(Date.now() - 9_000);
    // An agent without sessions, e.g. of a mail server.
    await send(host, beat({ wallClockMs: old(), spoolDepth: 1n }));
    await until("the late heartbeat", async () => (await status())["spool_depth"] === 1n);
    expect(await conditions()).toEqual([]);
    await send(host, beat({ wallClockMs: old() }));
    await until("the condition", async () => (await conditions()).length === 1);
    // One that has learned our clock was stopped with us.
    await send(host, beat({ wallClockMs: old(), disciplinedMs: old(), synchronised: true }));
    await until("the all-clear", async () => (await conditions()).length === 0);
  });

  test("of a removed node change nothing", async () => {
    const { host, ingest } = await startAll();
    await db.system.execute(sql`UPDATE nodes SET removed_at = now() WHERE id = ${node().nodeId}`);
    await send(host, beat());
    await until("the refusal", async () =>
      (await ingest.registry.metrics()).includes(
        'cloudpods_ingest_dropped_messages_total{reason="HEARTBEAT_REFUSED"} 1',
      ),
    );
    expect(await status()).toMatchObject({ last_heartbeat_at: null });
  });

  test("under a revoked certificate put the agent's spool under suspicion until a valid one speaks", async () => {
    const { host, ingest } = await startAll();
    const spoolId = newId();
    const refused = async () => {
      const [row] = await db.system.query<{ refused_since: Date | null }>(
        sql`SELECT refused_since FROM node_spools WHERE spool_id = ${spoolId}`,
      );
      return row?.refused_since;
    };
    await send(host, beat({ certificateSerial: `OLD${node().nodeId}`, spoolId }));
    await until("the suspicion", async () => (await refused()) instanceof Date);
    expect(await status()).toMatchObject({ last_heartbeat_at: null });
    await send(host, beat({ certificateSerial: "made-up", spoolId }));
    await until("a second refusal", async () =>
      (await ingest.registry.metrics()).includes(
        'cloudpods_ingest_dropped_messages_total{reason="HEARTBEAT_REFUSED"} 2',
      ),
    );
    expect(await refused()).toBeInstanceOf(Date);
    expect(await status()).toMatchObject({ last_heartbeat_at: null });
    await send(host, beat({ certificateSerial: `NEW${node().nodeId}`, spoolId }));
    await until("the trust", async () => (await refused()) === null);
  });

  test("that are no heartbeats are counted and hold up nobody", async () => {
    const { host, ingest } = await startAll();
    await host.client.publishAsync(nodeTopics(node().nodeId).heartbeat, Buffer.from([255]), { qos: 1 });
    await send(host, beat({ spoolOldestMs: 2n ** 62n }));
    await send(host, beat());
    await until("the good one", async () => (await status())["last_heartbeat_at"] !== null);
    expect(await ingest.registry.metrics()).toContain(
      'cloudpods_ingest_dropped_messages_total{reason="MALFORMED_HEARTBEAT"} 2',
    );
  });

  test("a last will says that the node is gone, a heartbeat that it is back", async () => {
    const { host } = await startAll(NodePresence.encode({ online: false, bootId: "" }).finish());
    await send(host, beat());
    await until("presence", async () => (await status())["presence_online"] === true);
    host.client.stream.destroy();
    await until("absence", async () => (await status())["presence_online"] === false);
    await until("the connection", () => host.client.connected);
    await send(host, beat());
    await until("presence again", async () => (await status())["presence_online"] === true);
  });
});
