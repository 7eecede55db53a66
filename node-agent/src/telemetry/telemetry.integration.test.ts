import { mkdtempSync, rmSync } from "node:fs";
import { type Socket, connect as connectSocket, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Heartbeat,
  NodePresence,
  Sample,
  SampleAcks,
  SampleBatch,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { nodeTopics } from "@cloudpods/shared/topics";
import { type MqttClient, connectAsync } from "mqtt";
import { pino } from "pino";
import { Registry } from "prom-client";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Broker, startBroker } from "../../../control-plane/src/broker/start-broker.ts";
import type { ServerTls } from "../../../control-plane/src/platform/tls-listener.ts";
import type { SigningAuthority } from "../../../control-plane/src/nodes/certificate-authority.ts";
import { brokerTls, hostTls, replicaTls } from "../../../test/support/broker-identities.ts";
import { freePort } from "../../../test/support/free-port.ts";
import { makeTestAuthority } from "../../../test/support/test-authority.ts";
import { until } from "../../../test/support/until.ts";
import { type DisciplinedClock, createDisciplinedClock } from "../clock/disciplined-clock.ts";
import { type Spool, openSpool } from "../spool/spool.ts";
import { type Telemetry, type TelemetryCredentials, createTelemetry } from "./telemetry.ts";

/** The clock of these tests runs faster, so that 30 s until the next offer are 0.3 s. */
const CLOCK_FACTOR = 100;
const nodeId = crypto.randomUUID();
const topics = nodeTopics(nodeId);
const silent = pino({ level: "silent" });
const closers: (() => unknown)[] = [];

let authority: SigningAuthority;
let serverTls: ServerTls;
let broker: Broker;
let clock: DisciplinedClock;
let spool: Spool;
let telemetry: Telemetry;

beforeEach(async () => {
  authority = await makeTestAuthority();
  serverTls = await brokerTls(authority);
  // It comes back to the port that it left, which an own connection of the machine could have taken meanwhile.
  broker = await openBroker(await freePort());
  clock = createDisciplinedClock({ bootId: "boot-1", monotonicMs: () => performance.now() * CLOCK_FACTOR });
  const nowMs = clock.monotonicMs();
  clock.recordExchange({ sentMonotonicMs: nowMs, receivedMonotonicMs: nowMs, serverTimeMs: 1_700_000_000_000 });
  const folder = mkdtempSync(join(tmpdir(), "telemetry-"));
  spool = openSpool({ path: join(folder, "spool.db"), clock, limitBytes: 1e9, log: silent });
  spool.startSession(-1n);
  telemetry = await openTelemetry();
  closers.push(
    () => broker.close(),
    () => rmSync(folder, { recursive: true }),
    () => spool.close(),
  );
});

afterEach(async () => {
  await telemetry.stop();
  for (const close of closers.splice(0).toReversed()) await close();
});

async function openBroker(port: number): Promise<Broker> {
  return startBroker({
    tls: serverTls,
    host: "127.0.0.1",
    port,
    authorizeNode: () => Promise.resolve(true),
    log: silent,
    registry: new Registry(),
  });
}

async function credentialsOf(from: SigningAuthority): Promise<TelemetryCredentials> {
  const { cert, key } = await hostTls(from, nodeId);
  return { certificatePem: cert, privateKeyPem: key, caBundlePem: authority.pem };
}

async function openTelemetry(): Promise<Telemetry> {
  let sequence = 0n;
  const opened = createTelemetry({
    nodeId,
    bootId: "boot-1",
    brokerUrl: `mqtts://127.0.0.1:${broker.port}`,
    credentials: await credentialsOf(authority),
    heartbeatIntervalMs: 100,
    collectHeartbeat: async () => {
      sequence += 1n;
      return Heartbeat.fromPartial({ bootId: "boot-1", sequence });
    },
    spool,
    log: silent,
  });
  return opened;
}

/** A wire between agent and broker that can be cut. */
async function openWire(): Promise<{ port: number; cut: () => void }> {
  const ends = new Set<Socket>();
  const server = createServer((near) => {
    const far = connectSocket(broker.port, "127.0.0.1");
    near.pipe(far).pipe(near);
    for (const end of [near, far]) {
      ends.add(end);
      // What is cut complains; that is what it is cut for.
      end.on("error", () => end.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = (): void => ends.forEach((end) => end.destroy());
  closers.push(() => {
    cut();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the wire has no port");
  return { port: address.port, cut };
}

async function replica(): Promise<MqttClient> {
  const tls = await replicaTls(authority);
  const client = await connectAsync(`mqtts://127.0.0.1:${broker.port}`, {
    ...tls,
    ca: [...tls.ca],
    protocolVersion: 4,
    reconnectPeriod: 50,
  });
  closers.push(() => client.end(true));
  return client;
}

/** A control plane that stores what it gets and answers as well as `fault` lets it. */
async function acknowledger(fault: () => "answer" | "lose" | "answer twice" | "answer late") {
  const client = await replica();
  const stored = new Map<string, SampleBatch>();
  const received: string[] = [];
  const answer = ({ spoolId, seqFrom, seqTo }: SampleBatch): void => {
    const acks = SampleAcks.fromPartial({ spoolId, ranges: [{ from: seqFrom, to: seqTo }] });
    client.publish(topics.acks, Buffer.from(SampleAcks.encode(acks).finish()), { qos: 1 });
  };
  client.on("message", (_topic, payload) => {
    const batch = SampleBatch.decode(payload);
    const identity = `${batch.spoolId}/${batch.seqFrom}-${batch.seqTo}`;
    received.push(identity);
    const outcome = fault();
    if (outcome === "lose") return;
    stored.set(identity, batch);
    if (outcome === "answer late") setTimeout(() => answer(batch), 150);
    else answer(batch);
    if (outcome === "answer twice") answer(batch);
  });
  await client.subscribeAsync("cloudpods/v1/nodes/+/samples", { qos: 1 });
  return { stored, received };
}

let podEndMs = 0;

function tick(): void {
  const toMs = Math.max(clock.monotonicMs(), podEndMs + 1);
  const fromMs = podEndMs === 0 ? toMs - 1000 : podEndMs;
  podEndMs = toMs;
  const sample = { podId: "pod", startMs: BigInt(fromMs), endMs: BigInt(toMs), cpuUsageUs: 7n, sampleCount: 1 };
  spool.append({
    samples: [Sample.fromPartial(sample)],
    coversFromMonotonicMs: fromMs,
    coversToMonotonicMs: toMs,
    unreadableVmids: [],
    samplerState: Buffer.alloc(1),
  });
  telemetry.offerNow();
}

function usageOf(batches: Iterable<SampleBatch>): bigint {
  return [...batches].flatMap(({ samples }) => samples).reduce((sum, { cpuUsageUs }) => sum + cpuUsageUs, 0n);
}

const isDrained = (): boolean => spool.status().depth === 0;

test("losses, duplicates and late or reordered answers cost time and nothing else", async () => {
  let count = 0;
  const faults = ["lose", "answer", "answer twice", "answer late", "lose", "answer late", "answer"] as const;
  const plane = await acknowledger(() => faults[count++ % faults.length] ?? "answer");
  telemetry.start();
  for (let index = 0; index < 60; index += 1) tick();
  await until("everything is acknowledged", isDrained, 40_000);
  expect(plane.stored.size).toBe(60);
  expect(plane.received.length).toBeGreaterThan(60);
  expect(usageOf(plane.stored.values())).toBe(60n * 7n);
});

test("a broker's own confirmation proves nothing: without an answer every batch stays", async () => {
  const plane = await acknowledger(() => "lose");
  telemetry.start();
  for (let index = 0; index < 20; index += 1) tick();
  await until("the first are offered again", () => plane.received.length > 8);
  expect(new Set(plane.received).size).toBe(8);
  expect(spool.status().depth).toBe(20);
});

test("a broker that is away and comes back gets everything, by itself", async () => {
  const plane = await acknowledger(() => "answer");
  telemetry.start();
  tick();
  await until("the first is acknowledged", isDrained);
  const { port } = broker;
  await broker.close();
  await until("the loss is noticed", () => !telemetry.isConnected());
  for (let index = 0; index < 30; index += 1) tick();
  expect(spool.status().depth).toBe(30);
  broker = await openBroker(port);
  await until("everything is acknowledged", isDrained, 40_000);
  expect(usageOf(plane.stored.values())).toBe(31n * 7n);
});

test("presence is retained, and heartbeats come by themselves", async () => {
  const watcher = await replica();
  const presence: boolean[] = [];
  const heartbeats: bigint[] = [];
  watcher.on("message", (topic, payload) => {
    if (topic === topics.status) presence.push(NodePresence.decode(payload).online);
    if (topic === topics.heartbeat) heartbeats.push(Heartbeat.decode(payload).sequence);
  });
  await watcher.subscribeAsync("cloudpods/v1/nodes/+/+", { qos: 1 });
  const wire = await openWire();
  telemetry.configure({ brokerUrl: `mqtts://127.0.0.1:${wire.port}`, heartbeatIntervalMs: 100 });
  telemetry.start();
  await until("three heartbeats", () => heartbeats.length >= 3);
  expect(presence).toEqual([true]);
  wire.cut();
  await until("the last will and the return", () => presence.length >= 3);
  expect(presence).toEqual([true, false, true]);
  await telemetry.stop();
  await until("the goodbye", () => presence.length >= 4);
  expect(presence.at(-1)).toBe(false);
  const sofar = heartbeats.length;
  tick();
  expect(heartbeats.length).toBe(sofar);
});

test("a renewed certificate is taken over without a restart, a foreign one gets nothing", async () => {
  const plane = await acknowledger(() => "answer");
  const stranger = await makeTestAuthority();
  telemetry.updateCredentials(await credentialsOf(stranger));
  telemetry.start();
  tick();
  await expect(until("a connection", () => telemetry.isConnected(), 1500)).rejects.toThrow("did not come");
  expect(plane.received).toEqual([]);
  telemetry.updateCredentials(await credentialsOf(authority));
  await until("everything is acknowledged", isDrained);
  telemetry.updateCredentials(await credentialsOf(authority));
  tick();
  await until("everything is acknowledged again", isDrained);
  expect(usageOf(plane.stored.values())).toBe(14n);
});

test("a broker address from the session is taken over", async () => {
  const plane = await acknowledger(() => "answer");
  const good = `mqtts://127.0.0.1:${broker.port}`;
  telemetry.configure({ brokerUrl: "mqtts://127.0.0.1:1", heartbeatIntervalMs: 100 });
  telemetry.start();
  tick();
  telemetry.configure({ brokerUrl: "nonsense://127.0.0.1", heartbeatIntervalMs: 100 });
  telemetry.configure({ brokerUrl: good, heartbeatIntervalMs: 50 });
  await until("everything is acknowledged", isDrained);
  expect(plane.stored.size).toBe(1);
});
