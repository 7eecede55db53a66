import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { pino } from "pino";
import { Registry } from "prom-client";
import { newId } from "@cloudpods/shared/ids";
import { startBroker } from "../../control-plane/src/broker/start-broker.ts";
import { openDatabase, type Database } from "../../control-plane/src/platform/database.ts";
import { startEmbeddedPostgres } from "../../control-plane/src/platform/embedded-postgres.ts";
import { createLogins, migrate } from "../../control-plane/src/platform/migrate.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { startIngest } from "../../control-plane/src/samples-intake/ingest.ts";
import { sampleColumns } from "../../control-plane/src/samples-intake/sample-rows.ts";
import { openStorePool, type StorePool } from "../../control-plane/src/samples-intake/store-pool.ts";
import { brokerTls, hostTls, replicaTls } from "../support/broker-identities.ts";
import { batchOf, payloadOf, sampleOf, seedFleet, type FleetNode } from "../support/telemetry-fleet.ts";
import { makeTestAuthority } from "../support/test-authority.ts";
import { until } from "../support/until.ts";
import type { BenchBroker, BenchIdentity } from "./bench-host.ts";

/** A database, a broker and ingest as in production, with a fleet that may send. */
export interface IngestUnderBench {
  readonly database: Database;
  readonly pool: StorePool;
  readonly broker: BenchBroker;
  readonly fleet: readonly FleetNode[];
  /** In the order of the fleet. */
  readonly identities: readonly BenchIdentity[];
  /** Empties the table of samples and brings everything to the disk. */
  fresh(): Promise<void>;
  countSamples(): Promise<number>;
}

/** Runs `work` beside an embedded PostgreSQL, broker and ingest of its own. */
export async function withIngest(
  size: { readonly hosts: number; readonly podsPerHost: number },
  work: (bench: IngestUnderBench) => Promise<void>,
): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-bench-"));
  const server = await startEmbeddedPostgres({ directory });
  try {
    await runBeside(server.superuserUrl, size, work);
  } finally {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

async function runBeside(
  superuserUrl: string,
  size: { readonly hosts: number; readonly podsPerHost: number },
  work: (bench: IngestUnderBench) => Promise<void>,
): Promise<void> {
  const logins = await createLogins(superuserUrl, "bench");
  await migrate(logins.systemUrl, logins.apiUrl);
  const database = openDatabase({ url: logins.systemUrl, applicationName: "bench", connectionsMax: 4 });
  const pool = openStorePool(logins.systemUrl, 2);
  const superuser = new pg.Client({ connectionString: superuserUrl });
  await superuser.connect();
  const fleet = await seedFleet(database, { nodes: size.hosts, podsPerNode: size.podsPerHost });

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
  const replica = await replicaTls(authority);
  const mqttUrl = `mqtts://127.0.0.1:${broker.port}`;
  const ingest = startIngest({
    database,
    databaseUrl: logins.systemUrl,
    mqttUrl: () => mqttUrl,
    tls: () => replica,
    replicaId: newId(),
    log,
    registry: new Registry(),
  });
  await until("the subscription", () => ingest.mode() === "plain");
  await work({
    database,
    pool,
    broker: { port: broker.port, ca: authority.pem },
    fleet,
    identities: await Promise.all(
      fleet.map(async ({ nodeId }) => {
        const { cert, key } = await hostTls(authority, nodeId);
        return { nodeId, cert, key };
      }),
    ),
    async fresh() {
      await database.execute(sql`TRUNCATE cloud_pod_usage_samples`);
      await superuser.query("CHECKPOINT");
    },
    async countSamples() {
      const [stored] = await database.query<{ rows: bigint }>(
        sql`SELECT count(*) AS rows FROM cloud_pod_usage_samples`,
      );
      return Number(stored?.rows);
    },
  });
  await ingest.stop();
  await broker.close();
  await superuser.end();
  await pool.close();
  await database.close();
}

/** A batch of a minute of all pods of a host, with values of all sizes, so that rows are as wide as real ones. */
export function minuteOf(node: FleetNode, spoolId: string, seq: number, endMs: number): Uint8Array {
  const samples = node.pods.map((pod) =>
    sampleOf(pod, endMs, {
      cpuUsageUs: BigInt(Math.floor(Math.random() * 6e7)),
      memoryByteMs: BigInt(Math.floor(Math.random() * 6e13)),
      diskByteMs: BigInt(Math.floor(Math.random() * 1e15)),
      guestInBytes: BigInt(Math.floor(Math.random() * 1e8)),
      guestOutBytes: BigInt(Math.floor(Math.random() * 1e8)),
    }),
  );
  return payloadOf(
    batchOf(node, spoolId, { from: seq }, endMs, { samples, lowestUnackedSeq: BigInt(Math.max(1, seq - 8)) }),
  );
}

/** The bare engine: COPY of encoded rows into the table of samples, durable when it returns; takes ms. */
export async function copyBare(pool: StorePool, rows: Buffer): Promise<number> {
  const startedMs = performance.now();
  await pool.transaction(60_000, (tx) => tx.copyBinary(`cloud_pod_usage_samples (${sampleColumns})`, rows));
  return performance.now() - startedMs;
}
