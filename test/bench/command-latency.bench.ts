import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { agentGatewayService } from "@cloudpods/proto/agent-gateway-service";
import { Command, type ConnectResponse } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import pg from "pg";
import { issueServerCertificate } from "../../control-plane/src/nodes/certificate-authority.ts";
import type { IssuingDeps } from "../../control-plane/src/nodes/node-certificates.ts";
import { insertCommand } from "../../control-plane/src/nodes/send-command.ts";
import { openDatabase, type Database } from "../../control-plane/src/platform/database.ts";
import { startEmbeddedPostgres } from "../../control-plane/src/platform/embedded-postgres.ts";
import { createLogins, migrate } from "../../control-plane/src/platform/migrate.ts";
import { connectAgent, type ConnectedAgent } from "../support/connected-agent.ts";
import { enrolHost, issuingDeps, type EnrolledHost } from "../support/enrolled-host.ts";
import { startGatewayUnderTest } from "../support/gateway-under-test.ts";
import { printBenchResult } from "./bench-result.ts";

/**
 * From the beginning of the transaction that writes a command to its arrival at the agent: one commit, one
 * notification from another replica, the gateway's own transaction, one write over gRPC with mutual TLS.
 * Beside it the bare engine: an INSERT that commits, a NOTIFY, a LISTEN that writes a stream.
 */
const agentsCount = 20;
const rounds = Number(process.env["BENCH_ROUNDS"] ?? 1_000);
const warmUp = 100;
const loadPerSecond = 200;

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "cloudpods-bench-pg-"));
  const server = await startEmbeddedPostgres({ directory });
  try {
    const logins = await createLogins(server.superuserUrl, "bench");
    await migrate(logins.systemUrl, logins.apiUrl);
    const system = openDatabase({ url: logins.systemUrl, applicationName: "bench", connectionsMax: 12 });
    try {
      await measure(system, logins.systemUrl);
    } finally {
      await system.close();
    }
  } finally {
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

async function measure(system: Database, systemUrl: string): Promise<void> {
  const deps = await issuingDeps(system, randomBytes(32));
  const hosts: EnrolledHost[] = [];
  for (let index = 0; index < agentsCount; index++) hosts.push(await enrolHost(system, deps));
  const gateway = await startGatewayUnderTest({ system, systemUrl }, deps);
  const other = await startGatewayUnderTest({ system, systemUrl }, deps);
  const agents = hosts.map((host) => connectAgent(host, gateway.port));
  await Promise.all(agents.map((agent) => agent.welcome()));
  const arrival = noteArrivals(agents);
  const pairs = hosts.map((host, index) => ({ nodeId: host.nodeId, agent: agents[index] })).filter(isPair);

  const send = async (pair: Pair, hints: typeof other.hints): Promise<number> => {
    const startedMs = performance.now();
    const op = { $case: "inspect", value: { awaitAddressMs: 0, beforeRestore: undefined } } as const;
    const id = await system.transaction((tx) =>
      insertCommand(tx, { nodeId: pair.nodeId, generation: 0n, revision: 0n, op }),
    );
    hints.send("node_commands", pair.nodeId);
    const latencyMs = (await arrival(id)) - startedMs;
    await pair.agent.succeed({ commandId: id, generation: 0n });
    return latencyMs;
  };
  const inTurn = async (hints: typeof other.hints): Promise<number[]> => {
    const latenciesMs: number[] = [];
    for (let index = 0; index < rounds + warmUp; index++) {
      const pair = pairs[index % pairs.length];
      if (pair !== undefined) latenciesMs.push(await send(pair, hints));
    }
    return latenciesMs.slice(warmUp);
  };
  const sameReplica = await inTurn(gateway.hints);
  const otherReplica = await inTurn(other.hints);
  const loaded = await underLoad(pairs, (pair) => send(pair, other.hints));
  for (const agent of agents) agent.close();
  await Promise.all([gateway.stop(), other.stop()]);
  const bare = await measureBare(systemUrl, deps, hosts[0]);
  printBenchResult({
    bench: "command-latency",
    value: quantile(otherReplica, 0.5),
    unit: "ms p50",
    bare: quantile(bare, 0.5),
    p99Ms: round(quantile(otherReplica, 0.99)),
    bareP99Ms: round(quantile(bare, 0.99)),
    sameReplicaP50Ms: round(quantile(sameReplica, 0.5)),
    sameReplicaP99Ms: round(quantile(sameReplica, 0.99)),
    loadPerSecond,
    underLoadP50Ms: round(quantile(loaded, 0.5)),
    underLoadP99Ms: round(quantile(loaded, 0.99)),
    agents: agentsCount,
    rounds,
  });
}

interface Pair {
  readonly nodeId: string;
  readonly agent: ConnectedAgent;
}

function isPair(pair: { nodeId: string; agent: ConnectedAgent | undefined }): pair is Pair {
  return pair.agent !== undefined;
}

/** Times at which commands were heard, by id. */
function noteArrivals(agents: readonly ConnectedAgent[]): (id: string) => Promise<number> {
  const heardMs = new Map<string, PromiseWithResolvers<number>>();
  const of = (id: string): PromiseWithResolvers<number> => {
    const known = heardMs.get(id) ?? Promise.withResolvers<number>();
    heardMs.set(id, known);
    return known;
  };
  for (const agent of agents) {
    agent.onHeard((message) => {
      if (message.$case === "command") of(message.value.commandId).resolve(performance.now());
    });
  }
  return (id) => of(id).promise;
}

/** Orders at a steady rate, spread over the agents, whether or not the earlier ones have arrived. */
async function underLoad(pairs: readonly Pair[], send: (pair: Pair) => Promise<number>): Promise<number[]> {
  const sent: Promise<number>[] = [];
  const startedMs = performance.now();
  for (let index = 0; index < rounds; index++) {
    const waitMs = startedMs + (index * 1_000) / loadPerSecond - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const pair = pairs[index % pairs.length];
    if (pair !== undefined) sent.push(send(pair));
  }
  return await Promise.all(sent);
}

async function measureBare(systemUrl: string, deps: IssuingDeps, host: EnrolledHost | undefined): Promise<number[]> {
  if (host === undefined) throw new Error("no host");
  const certificate = await issueServerCertificate(deps.authorities.active, ["127.0.0.1"], new Date());
  const credentials = ServerCredentials.createSsl(
    Buffer.from(deps.authorities.pems.join("")),
    [{ cert_chain: Buffer.from(certificate.pem), private_key: Buffer.from(certificate.privateKeyPem) }],
    true,
  );
  let write: ((message: ConnectResponse) => void) | undefined;
  const server = new Server();
  server.addService(agentGatewayService, {
    connect: (call: { write(message: ConnectResponse): void }) => void (write = (message) => call.write(message)),
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error === null ? resolve(bound) : reject(error)));
  });
  const [writer, notifier, listener] = [1, 2, 3].map(() => new pg.Client({ connectionString: systemUrl }));
  if (writer === undefined || notifier === undefined || listener === undefined) throw new Error("no clients");
  await Promise.all([writer.connect(), notifier.connect(), listener.connect()]);
  await writer.query("CREATE TABLE bare_commands (id uuid PRIMARY KEY, body jsonb NOT NULL)");
  await listener.query("LISTEN bare");
  listener.on("notification", ({ payload }) =>
    write?.({ message: { $case: "command", value: Command.fromPartial({ commandId: payload ?? "" }) } }),
  );
  const agent = connectAgent(host, port);
  const arrival = noteArrivals([agent]);
  while (write === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
  const latenciesMs: number[] = [];
  for (let index = 0; index < rounds + warmUp; index++) {
    const id = newId();
    const startedMs = performance.now();
    await writer.query("INSERT INTO bare_commands VALUES ($1, $2)", [
      id,
      JSON.stringify({ commandId: id, inspect: { awaitAddressMs: 0 } }),
    ]);
    await notifier.query("SELECT pg_notify('bare', $1)", [id]);
    latenciesMs.push((await arrival(id)) - startedMs);
  }
  agent.close();
  await Promise.all([writer.end(), notifier.end(), listener.end()]);
  server.forceShutdown();
  return latenciesMs.slice(warmUp);
}

function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

function round(figure: number): number {
  return Number(figure.toPrecision(4));
}

await main();
