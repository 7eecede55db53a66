import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Database, openDatabase } from "../../control-plane/src/platform/database.ts";
import type { DatabaseLogins } from "../../control-plane/src/platform/migrate.ts";
import { type ApiClient, createApiClient } from "../../tools/demo/api-client.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { type Invariants, checkInvariants, faultsOf } from "../../tools/demo/check-invariants.ts";
import type { SimulatedHostOptions } from "../simulated-host/host.ts";
import { type DemoHost, createDemoHost } from "../../tools/demo/demo-hosts.ts";
import { type Credentials, seed, signIn } from "../../tools/demo/seed.ts";
import { builtPrograms } from "./built-programs.ts";
import { type StackFront, describeReplicas, startFront } from "./stack-front.ts";
import type { Replica } from "./stack-replica.ts";
import { processesAbout } from "./processes.ts";
import { restBetweenRequestsMs, until } from "./until.ts";

/** What a stack is made of. */
export interface StackOptions {
  /** A database that is somebody else's; the stack only uses it. */
  readonly logins: DatabaseLogins;
  /** A broker that is somebody else's; without it the first replica that has the role runs one. */
  readonly mqttUrl?: string;
  /** 32 bytes; made anew by default. */
  readonly masterKey?: Buffer;
  /** Names of the hosts. */
  readonly hosts: readonly string[];
  /** What is different about a host; `directory` is the stack's own. */
  readonly host?: (name: string, directory: string) => Partial<SimulatedHostOptions>;
  /** How many replicas there are; the first is started. */
  readonly replicas?: number;
  /** Variables of the replicas' configuration besides the usual ones. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** A whole CloudPods in processes of its own: control plane, hosts, an agent on each. */
export interface Stack {
  readonly directory: string;
  /** Owner's login, to look at rows. */
  readonly db: Database;
  readonly hosts: readonly DemoHost[];
  readonly replicas: readonly [Replica, ...Replica[]];
  readonly front: StackFront;
  readonly credentials: Credentials;
  /** The customer's, good at every replica. */
  readonly customerToken: string;
  /** The customer's way to a replica; the first one by default. */
  customer(replica?: Replica): ApiClient;
  admin(replica?: Replica): ApiClient;
  /** @throws Error when there is no host of that name */
  host(name: string): DemoHost;
  /** Waits until nothing is lost, doubled, oversold or orphaned. @throws Error naming what is */
  settle(): Promise<Invariants>;
  /** Ends every process. */
  stop(): Promise<void>;
  /** `settle`, `stop`, and proves that no process is left. @throws Error naming what is wrong */
  finish(): Promise<Invariants>;
}

const settleDeadlineMs = 60_000;

/**
 * Each pod has a moment of the day for its backup, by its id. One in 1,440 comes within a minute, and whoever asks something of
 * the pod then is told that it is busy.
 */
const withoutSchedules = sql`UPDATE plan_backup_policies SET enabled = false`;

/** Starts the first replica, enrols the hosts by real join tokens and waits until they are online. */
export async function startStack(options: StackOptions): Promise<Stack> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-stack-"));
  await chmod(directory, 0o711);
  const db = openDatabase({ url: options.logins.systemUrl, applicationName: "test stack", connectionsMax: 4 });
  const front = await startFront();
  const replicas = await describeReplicas({
    ...options,
    masterKey: options.masterKey ?? randomBytes(32),
    count: options.replicas ?? 1,
    directory,
    front,
  });
  const hosts: DemoHost[] = [];
  const stop = async (): Promise<void> => {
    await Promise.allSettled(hosts.map((host) => host.stop()));
    await Promise.allSettled(replicas.map((replica) => replica.terminate()));
    await front.close();
    await db.close();
  };
  try {
    const [first] = replicas;
    await first.start();
    const credentials = await seed(db, directory);
    await db.execute(withoutSchedules);
    const [adminToken, customerToken] = await Promise.all(
      [credentials.adminEmail, credentials.customerEmail].map((email) =>
        signIn(first.url, email, credentials.password),
      ),
    );
    const admin = (replica = first): ApiClient => closing(createApiClient(replica.url, adminToken));
    await Promise.all(
      options.hosts.map((name) =>
        addHost(name, {
          directory,
          hosts,
          serverUrl: first.url,
          admin: admin(),
          changes: options.host?.(name, directory),
        }),
      ),
    );
    await untilOnline(admin(), hosts);
    const settle = (): Promise<Invariants> => settled(db, hosts, directory);
    return {
      directory,
      db,
      hosts,
      replicas,
      front,
      credentials,
      customerToken: customerToken ?? "",
      customer: (replica = first) => closing(createApiClient(replica.url, customerToken)),
      admin,
      host: (name) => hosts.find((host) => host.name === name) ?? noHost(name),
      settle,
      stop,
      async finish() {
        let found: Invariants;
        try {
          found = await settle();
        } finally {
          await stop();
        }
        const left = await processesAbout(directory);
        if (left.length > 0) throw new Error(`left behind: ${JSON.stringify(left)}`);
        await rm(directory, { recursive: true, force: true });
        return found;
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/**
 * A connection for each request: one that is kept is closed by the server after a few seconds, maybe just when a test that
 * stood still sends its next request over it.
 */
function closing(api: ApiClient): ApiClient {
  return {
    request: async (method, path, body, headers = {}) =>
      await api.request(method, path, body, { connection: "close", ...headers }),
  };
}

/** Waits until the control plane sees hosts online, and so places pods on them. */
export async function untilOnline(admin: ApiClient, hosts: readonly { readonly name: string }[]): Promise<void> {
  await until(
    `${hosts.map(({ name }) => name).join(", ")} online`,
    async () => {
      const { data } = await admin.request<{ data: { name: string; state: string }[] }>("GET", "/api/nodes");
      const online = new Set(data.filter(({ state }) => state === "online").map(({ name }) => name));
      return hosts.every(({ name }) => online.has(name));
    },
    60_000,
    restBetweenRequestsMs,
  );
}

interface NewHost {
  readonly directory: string;
  readonly hosts: DemoHost[];
  readonly serverUrl: string;
  readonly admin: ApiClient;
  readonly changes: Partial<SimulatedHostOptions> | undefined;
}

/** Makes a host, labels it with its name, so that orders can ask for it, and starts its agent. */
async function addHost(name: string, { directory, hosts, serverUrl, admin, changes }: NewHost): Promise<void> {
  const host = await createDemoHost(join(directory, "hosts"), name, hostSpeed, changes, builtPrograms().agent);
  hosts.push(host);
  const wish = { name, role: "hypervisor", region: "local" };
  const { token } = await admin.request<{ token: string }>("POST", "/api/nodes/join-tokens", wish);
  await host.join(serverUrl, token);
  await admin.request("PUT", `/api/nodes/${name}`, { labels: { host: name } });
  await host.startAgent();
}

/** Factor on every duration of a real host; the programs' own time remains. */
const hostSpeed = 0.02;

function noHost(name: string): never {
  throw new Error(`there is no host ${name}`);
}

async function settled(db: Database, hosts: readonly DemoHost[], directory: string): Promise<Invariants> {
  const deadline = Date.now() + settleDeadlineMs;
  for (;;) {
    const found = await checkInvariants(db, hosts);
    const faults = faultsOf(found);
    if (faults.length === 0) return found;
    if (Date.now() > deadline) throw new Error(`${faults.join(", ")}; the logs are in ${directory}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}
