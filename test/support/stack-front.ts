import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { DatabaseLogins } from "../../control-plane/src/platform/migrate.ts";
import { freePort } from "./free-port.ts";
import { type Replica, createReplica } from "./stack-replica.ts";
import { type TcpProxy, startTcpProxy } from "./tcp-proxy.ts";

/** Where agents find gateway and broker, whichever replica serves them; replicas find the broker here too. */
export interface StackFront {
  readonly gateway: TcpProxy;
  readonly broker: TcpProxy;
  close(): Promise<void>;
}

/** Starts the two addresses; nobody is behind them before `describeReplicas`. */
export async function startFront(): Promise<StackFront> {
  const [gateway, broker] = await Promise.all([startTcpProxy(), startTcpProxy()]);
  return { gateway, broker, close: async () => void (await Promise.all([gateway.close(), broker.close()])) };
}

/** What replicas of one control plane have in common. */
export interface ReplicasOptions {
  readonly logins: DatabaseLogins;
  readonly mqttUrl?: string;
  readonly masterKey: Buffer;
  readonly count: number;
  readonly directory: string;
  readonly front: StackFront;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Loopback addresses of the replicas: what they announce is one port, behind which each listens apart. */
const addressOf = (index: number): string => `127.0.0.${index + 2}`;

/** Describes replicas that all serve behind the front; none is started. */
export async function describeReplicas(options: ReplicasOptions): Promise<readonly [Replica, ...Replica[]]> {
  const { front, count } = options;
  for (const proxy of [front.gateway, front.broker])
    proxy.route(...Array.from({ length: count }, (_, index) => ({ host: addressOf(index), port: proxy.port })));
  const first = await describeReplica(options, 0);
  const others = Array.from({ length: count - 1 }, (_, index) => describeReplica(options, index + 1));
  return [first, ...(await Promise.all(others))];
}

async function describeReplica(options: ReplicasOptions, index: number): Promise<Replica> {
  const { directory, logins, front, masterKey, mqttUrl } = options;
  const name = `replica-${index + 1}`;
  const host = addressOf(index);
  const port = await freePort();
  await mkdir(join(directory, name), { mode: 0o700 });
  return createReplica({
    name,
    url: `http://${host}:${port}`,
    logPath: join(directory, `${name}.log`),
    environment: {
      CLOUDPODS_DATABASE_URL: logins.systemUrl,
      CLOUDPODS_DATABASE_API_URL: logins.apiUrl,
      CLOUDPODS_MASTER_KEY: masterKey.toString("hex"),
      CLOUDPODS_DATA_DIR: join(directory, name),
      CLOUDPODS_HTTP_HOST: host,
      CLOUDPODS_HTTP_PORT: String(port),
      CLOUDPODS_GATEWAY_HOST: host,
      CLOUDPODS_GATEWAY_PORT: String(front.gateway.port),
      CLOUDPODS_SAMPLE_INTERVAL_SECONDS: "1",
      CLOUDPODS_HEARTBEAT_INTERVAL_SECONDS: "1",
      CLOUDPODS_SECURE_COOKIES: "false",
      ...options.environment,
      ...(mqttUrl === undefined
        ? { CLOUDPODS_BROKER_HOST: host, CLOUDPODS_BROKER_PORT: String(front.broker.port) }
        : { CLOUDPODS_MQTT_URL: mqttUrl }),
    },
  });
}
