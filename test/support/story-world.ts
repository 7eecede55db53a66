import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newId } from "@cloudpods/shared/ids";
import { openDatabase, type Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { type ExternalBrokerTls, externalBrokerTls, hostTls, replicaTls } from "./broker-identities.ts";
import { type Mosquitto, startMosquitto } from "./mosquitto.ts";
import { type StoppablePostgres, startStoppablePostgres } from "./stoppable-postgres.ts";
import { type StoryAgent, storyAgent } from "./story-agent.ts";
import { recordBeginning } from "./story-records.ts";
import { type StoryReplica, storyReplica } from "./story-replica.ts";
import { type TcpProxy, startTcpProxy } from "./tcp-proxy.ts";
import { makeTestAuthority } from "./test-authority.ts";
import type { Story } from "./usage-truth/story.ts";
import { type StoryOptions, tellStory } from "./usage-truth/tell-story.ts";

/** Everything that a story is measured with, each part in processes of its own that may die. */
export interface StoryWorld {
  readonly story: Story;
  readonly db: Database;
  readonly postgres: StoppablePostgres;
  /** Ends the broker as a crash does and starts it again at the same address. */
  restartBroker(awayMs: () => Promise<void>): Promise<void>;
  readonly replicas: readonly StoryReplica[];
  /** One for each host. */
  readonly agents: readonly StoryAgent[];
  /** Cuts a host off the network, or joins it again. */
  connect(host: number, isConnected: boolean): Promise<void>;
  dispose(): Promise<void>;
}

/** Starts PostgreSQL, a broker and two replicas, and writes down how the story begins. */
export async function startStoryWorld(options: StoryOptions): Promise<StoryWorld> {
  const story = tellStory(options);
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-story-"));
  const postgres = await startStoppablePostgres();
  const { systemUrl } = postgres.logins;
  const db = openDatabase({ url: systemUrl, applicationName: "story", connectionsMax: 4, statementTimeoutMs: 300_000 });
  await recordBeginning(db, story);
  const authority = await makeTestAuthority();
  const brokerSide: ExternalBrokerTls = await externalBrokerTls(authority);
  let broker: Mosquitto = await startMosquitto(brokerSide);
  const networks = await Promise.all(story.hosts.map(() => startNetwork(broker.port)));
  const replicas = [0, 1].map(async () =>
    storyReplica(
      {
        replicaId: newId(),
        databaseUrl: systemUrl,
        mqttUrl: `mqtts://127.0.0.1:${broker.port}`,
        tls: await replicaTls(authority),
        archiveDirectory: join(directory, "archive"),
      },
      story.fromMs,
    ),
  );
  const agents = story.hosts.map(async ({ nodeId }, host) => {
    const { cert, key, ca } = await hostTls(authority, nodeId);
    return storyAgent({
      options,
      host,
      spoolPath: join(directory, `spool-${host}.db`),
      brokerUrl: `mqtts://127.0.0.1:${networks[host]?.port ?? 0}`,
      credentials: { certificatePem: cert, privateKeyPem: key, caBundlePem: ca.join("") },
      watermark: (spoolId) => patiently(() => watermarkOf(db, nodeId, spoolId)),
    });
  });
  const world = { replicas: await Promise.all(replicas), agents: await Promise.all(agents) };
  await Promise.all(world.replicas.map((replica) => replica.start()));
  return {
    ...world,
    story,
    db,
    postgres,
    async restartBroker(away) {
      await broker.kill();
      await away();
      broker = await startMosquitto(brokerSide, broker.port);
    },
    connect: async (host, isConnected) => await networks[host]?.connect(isConnected),
    async dispose() {
      await Promise.all([...world.agents, ...world.replicas].map((one) => one.kill()));
      await Promise.all(networks.map((network) => network.close()));
      await broker.stop();
      await db.close();
      await postgres.dispose();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The way from one host to the broker. */
async function startNetwork(brokerPort: number) {
  let proxy: TcpProxy | undefined = await startTcpProxy();
  proxy.route({ port: brokerPort });
  const { port } = proxy;
  return {
    port,
    async connect(isConnected: boolean) {
      if (isConnected === (proxy !== undefined)) return;
      if (isConnected) {
        proxy = await startTcpProxy(port);
        proxy.route({ port: brokerPort });
      } else {
        await proxy?.close();
        proxy = undefined;
      }
    },
    close: async () => await proxy?.close(),
  };
}

async function watermarkOf(db: Database, nodeId: string, spoolId: string): Promise<bigint> {
  const [row] = await db.query<{ watermark: bigint }>(
    sql`SELECT contiguous_seq AS watermark FROM node_spools WHERE node_id = ${nodeId} AND spool_id = ${spoolId}`,
  );
  return row?.watermark ?? -1n;
}

const patienceMs = 60_000;

/** Tries again while the database is away. */
export async function patiently<T>(work: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
