import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import pg from "pg";
import { pino } from "pino";
import { Registry } from "prom-client";
import { newId } from "@cloudpods/shared/ids";
import { startBroker } from "../../control-plane/src/broker/start-broker.ts";
import { openDatabase } from "../../control-plane/src/platform/database.ts";
import { startEmbeddedPostgres } from "../../control-plane/src/platform/embedded-postgres.ts";
import { createLogins, migrate } from "../../control-plane/src/platform/migrate.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { startIngest } from "../../control-plane/src/samples-intake/ingest.ts";
import { sampleColumns, SampleRows } from "../../control-plane/src/samples-intake/sample-rows.ts";
import { openStorePool, type StorePool } from "../../control-plane/src/samples-intake/store-pool.ts";
import { usageDays } from "../../control-plane/src/samples-intake/usage-days.ts";
import { brokerTls, hostTls, replicaTls } from "../support/broker-identities.ts";
import { batchOf, payloadOf, sampleOf, seedFleet, type FleetNode } from "../support/telemetry-fleet.ts";
import { makeTestAuthority } from "../support/test-authority.ts";
import { until } from "../support/until.ts";
import { printBenchResult } from "./bench-result.ts";
import type { PublisherWork, PublishingHost } from "./ingest-publisher.ts";

/**
 * Samples per second from hosts over the embedded broker (mutual TLS, a connection per host) to their
 * durable acknowledgement, every batch checked for repetition; beside the bare COPY of the same rows,
 * encoded beforehand, into the same table with its key. Both commit to the disk; rounds alternate.
 */
const hosts = Number(process.env["BENCH_HOSTS"] ?? 100);
const podsPerHost = Number(process.env["BENCH_PODS"] ?? 50);
const batchesPerHost = Number(process.env["BENCH_BATCHES"] ?? 120);
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 3);
const repeatEvery = 50;
/** Rows of one bare COPY, about as many as ingest puts into one transaction. */
const bareGroupRows = 10_000;

const endMs = Math.floor(Date.now() / 60_000) * 60_000;
const samplesPerRound = hosts * podsPerHost * batchesPerHost;

function endOf(batch: number): number {
  return endMs - (batchesPerHost - batch) * 60_000;
}

/** Values of all sizes, so that rows are as wide as real ones. */
function batchPayload(node: FleetNode, spoolId: string, seq: number): Uint8Array {
  const samples = node.pods.map((pod) =>
    sampleOf(pod, endOf(seq), {
      cpuUsageUs: BigInt(Math.floor(Math.random() * 6e7)),
      memoryByteMs: BigInt(Math.floor(Math.random() * 6e13)),
      diskByteMs: BigInt(Math.floor(Math.random() * 1e15)),
      guestInBytes: BigInt(Math.floor(Math.random() * 1e8)),
      guestOutBytes: BigInt(Math.floor(Math.random() * 1e8)),
    }),
  );
  return payloadOf(
    batchOf(node, spoolId, { from: seq }, endOf(seq), { samples, lowestUnackedSeq: BigInt(Math.max(1, seq - 8)) }),
  );
}

function bareGroups(fleet: readonly FleetNode[]): Buffer[] {
  const groups: Buffer[] = [];
  let rows = new SampleRows(bareGroupRows);
  for (let seq = 1; seq <= batchesPerHost; seq++) {
    fleet.forEach((node, index) => {
      for (const pod of node.pods) rows.add(sampleOf(pod, endOf(seq)), index + 1, BigInt(seq));
      if (rows.count >= bareGroupRows) {
        groups.push(rows.finish());
        rows = new SampleRows(bareGroupRows);
      }
    });
  }
  if (rows.count > 0) groups.push(rows.finish());
  return groups;
}

async function measureBare(pool: StorePool, groups: readonly Buffer[]): Promise<number> {
  const startedMs = performance.now();
  for (const group of groups) {
    await pool.transaction(60_000, (tx) => tx.copyBinary(`cloud_pod_usage_samples (${sampleColumns})`, group));
  }
  return (samplesPerRound * 1_000) / (performance.now() - startedMs);
}

async function measureIngest(work: PublisherWork): Promise<number> {
  const publisher = new Worker(new URL("./ingest-publisher.ts", import.meta.url), { workerData: work });
  await once(publisher, "message");
  const startedMs = performance.now();
  publisher.postMessage("go");
  await once(publisher, "message");
  const elapsedMs = performance.now() - startedMs;
  await once(publisher, "exit");
  return (samplesPerRound * 1_000) / elapsedMs;
}

function median(figures: readonly number[]): number {
  return figures.toSorted((a, b) => a - b)[Math.floor(figures.length / 2)] ?? Number.NaN;
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-bench-"));
  const server = await startEmbeddedPostgres({ directory });
  try {
    await measure(server.superuserUrl);
  } finally {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

async function measure(superuserUrl: string): Promise<void> {
  const logins = await createLogins(superuserUrl, "bench");
  await migrate(logins.systemUrl, logins.apiUrl);
  const database = openDatabase({ url: logins.systemUrl, applicationName: "bench", connectionsMax: 4 });
  const pool = openStorePool(logins.systemUrl, 2);
  const superuser = new pg.Client({ connectionString: superuserUrl });
  await superuser.connect();
  const fleet = await seedFleet(database, { nodes: hosts, podsPerNode: podsPerHost });
  await usageDays(pool).makeAhead(Date.now());
  await usageDays(pool).makeAhead(endOf(0));

  const authority = await makeTestAuthority();
  const log = pino({ level: "warn" });
  const broker = await startBroker({
    tls: await brokerTls(authority),
    host: "127.0.0.1",
    port: 0,
    authorizeNode: async () => true,
    log,
    registry: new Registry(),
  });
  const replicaId = newId();
  const replica = await replicaTls(authority);
  const mqttUrl = `mqtts://127.0.0.1:${broker.port}`;
  const ingest = startIngest({
    database,
    databaseUrl: logins.systemUrl,
    mqttUrl: () => mqttUrl,
    tls: () => replica,
    replicaId,
    log,
    registry: new Registry(),
  });
  await until("the subscription", () => ingest.mode() === "plain");
  const identities = await Promise.all(fleet.map((node) => hostTls(authority, node.nodeId)));

  const groups = bareGroups(fleet);
  const figures: { bare: number; value: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    const publishing: PublishingHost[] = fleet.map((node, index) => {
      const spoolId = newId();
      const { cert, key } = identities[index] ?? { cert: "", key: "" };
      return {
        nodeId: node.nodeId,
        cert,
        key,
        payloads: Array.from({ length: batchesPerHost }, (_, batch) => batchPayload(node, spoolId, batch + 1)),
      };
    });
    const fresh = async () => {
      await database.execute(sql`TRUNCATE cloud_pod_usage_samples`);
      await superuser.query("CHECKPOINT");
    };
    await fresh();
    const bare = await measureBare(pool, groups);
    await fresh();
    const value = await measureIngest({ port: broker.port, ca: authority.pem, hosts: publishing, repeatEvery });
    const [stored] = await database.query<{ rows: number }>(
      sql`SELECT count(*)::integer AS rows FROM cloud_pod_usage_samples`,
    );
    if (stored?.rows !== samplesPerRound) throw new Error(`${stored?.rows} rows are stored, not ${samplesPerRound}`);
    console.log(`round ${round + 1}: ${Math.round(value)} samples/s, bare COPY ${Math.round(bare)} rows/s`);
    figures.push({ bare, value });
  }
  await ingest.stop();
  await broker.close();
  await superuser.end();
  await pool.close();
  await database.close();
  printBenchResult({
    bench: "ingest",
    value: median(figures.map((figure) => figure.value)),
    unit: "samples/s",
    bare: median(figures.map((figure) => figure.bare)),
    rounds,
    samplesPerRound,
    hosts,
    samplesPerBatch: podsPerHost,
  });
}

await main();
