import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { builtPrograms } from "../../test/support/built-programs.ts";
import { compileCache } from "../../test/support/compile-cache.ts";
import { connectAgent } from "../../test/support/connected-agent.ts";
import { enrolHost, type EnrolledHost, issuingDeps } from "../../test/support/enrolled-host.ts";
import { freePort } from "../../test/support/free-port.ts";
import { createTestDatabase, type TestDatabase } from "../../test/support/postgres.ts";
import { exitOf } from "../../test/support/processes.ts";
import { until } from "../../test/support/until.ts";

const startMs = 60_000;
let db: TestDatabase;
let directory: string;
let masterKey: Buffer;
let host: EnrolledHost;
const children: ChildProcess[] = [];
beforeEach(async () => {
  db = await createTestDatabase();
  directory = await mkdtemp(join(tmpdir(), "cloudpods-replicas-"));
  masterKey = randomBytes(32);
  host = await enrolHost(db.system, await issuingDeps(db.system, masterKey));
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
    await exitOf(child);
  }
  await db.close();
  await rm(directory, { recursive: true, force: true });
});

interface Served {
  readonly child: ChildProcess;
  readonly gatewayPort: number;
  readonly brokerUrl: string;
  said(): string;
  page(path: string): Promise<{ status: number; text: string }>;
  /** Its readiness; undefined before it listens. */
  checks(): Promise<{ status: number; broker: unknown } | undefined>;
}

/** `cloudpods serve` with some roles, and with ports of its own. */
async function startReplica(roles: string, takenPort?: number): Promise<Served> {
  const [httpPort, gatewayPort, freeBrokerPort] = await Promise.all([freePort(), freePort(), freePort()]);
  const brokerPort = takenPort ?? freeBrokerPort;
  const child = spawn(process.execPath, [builtPrograms().controlPlane, "serve", "--roles", roles], {
    env: {
      PATH: process.env["PATH"],
      NODE_COMPILE_CACHE: compileCache,
      CLOUDPODS_DATABASE_URL: db.systemUrl,
      CLOUDPODS_DATABASE_API_URL: db.apiUrl,
      CLOUDPODS_MASTER_KEY: masterKey.toString("hex"),
      CLOUDPODS_DATA_DIR: directory,
      CLOUDPODS_HTTP_PORT: String(httpPort),
      CLOUDPODS_GATEWAY_HOST: "127.0.0.1",
      CLOUDPODS_GATEWAY_PORT: String(gatewayPort),
      CLOUDPODS_BROKER_HOST: "127.0.0.1",
      CLOUDPODS_BROKER_PORT: String(brokerPort),
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const page = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${httpPort}${path}`);
    return { status: answer.status, text: await answer.text() };
  };
  return {
    child,
    gatewayPort,
    brokerUrl: `mqtts://localhost:${brokerPort}`,
    said: () => said,
    page,
    async checks() {
      if (child.exitCode !== null) throw new Error(`a replica ended: ${said.slice(-2_000)}`);
      const answer = await page("/readyz").catch(() => undefined);
      // As the page is made.
      return answer && { status: answer.status, broker: JSON.parse(answer.text).checks.broker };
    },
  };
}

const untilReady = (replica: Served) =>
  until("a ready replica", async () => (await replica.checks())?.status === 200, startMs);

/** A port that somebody else listens on, and his end. */
async function takePort(): Promise<{ port: number; free: () => Promise<void> }> {
  const server = createServer();
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return { port, free: () => new Promise((resolve) => server.close(() => resolve())) };
}

test("the broker moves to another replica, which has patience with its port, and agents hear where it is", async () => {
  const stranger = await takePort();
  const first = await startReplica("broker");
  await untilReady(first);
  const second = await startReplica("gateway,ingest,broker", stranger.port);
  await untilReady(second);
  const before = connectAgent(host, second.gatewayPort);
  expect((await before.welcome()).brokerUrl).toBe(first.brokerUrl);
  first.child.kill("SIGKILL");
  await until("a failed takeover", () => second.said().includes("cannot be started; trying again"));
  expect(before.fault()).toBeUndefined();
  await stranger.free();
  expect(await before.refusal()).toBe("BROKER_MOVED");
  const after = connectAgent(host, second.gatewayPort);
  expect((await after.welcome()).brokerUrl).toBe(second.brokerUrl);
  await untilReady(second);
  after.close();
});

test("while no replica runs a broker, agents are told of none and ingest waits", async () => {
  const gateway = await startReplica("gateway,ingest");
  const checks = await until("its pages", () => gateway.checks(), startMs);
  expect(checks).toEqual({ status: 503, broker: { ready: false, reason: "no replica runs a broker" } });
  const before = connectAgent(host, gateway.gatewayPort);
  expect((await before.welcome()).brokerUrl).toBe("");
  const broker = await startReplica("broker");
  await untilReady(broker);
  expect(await before.refusal()).toBe("BROKER_MOVED");
  await untilReady(gateway);
  const after = connectAgent(host, gateway.gatewayPort);
  expect((await after.welcome()).brokerUrl).toBe(broker.brokerUrl);
  after.close();
});

test("a replica without the API has the health pages and nothing else", async () => {
  const worker = await startReplica("worker");
  await untilReady(worker);
  expect(await worker.page("/healthz")).toEqual({ status: 200, text: '{"status":"ok"}' });
  expect((await worker.page("/metrics")).text).toContain("process_cpu_seconds_total");
  for (const path of ["/api/nodes", "/docs", "/"]) expect((await worker.page(path)).status).toBe(404);
});

test("a broker whose port is a stranger's at the start ends the replica with the reason", async () => {
  const stranger = await takePort();
  const replica = await startReplica("broker", stranger.port);
  expect(await exitOf(replica.child)).toBe(1);
  expect(replica.said()).toContain("EADDRINUSE");
  await stranger.free();
});
