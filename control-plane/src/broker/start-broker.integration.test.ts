import { connect as connectTls } from "node:tls";
import mqtt, { type MqttClient } from "mqtt";
import { pino } from "pino";
import { Registry } from "prom-client";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { newId } from "@cloudpods/shared/ids";
import { nodeTopics } from "@cloudpods/shared/topics";
import { brokerTls, hostTls, replicaTls, type BrokerSideTls } from "../../../test/support/broker-identities.ts";
import { makeTestAuthority } from "../../../test/support/test-authority.ts";
import { until } from "../../../test/support/until.ts";
import { startBroker, type Broker } from "./start-broker.ts";

const nodeId = newId();
const otherId = newId();
const removedId = newId();
const clients: MqttClient[] = [];
let authority: Awaited<ReturnType<typeof makeTestAuthority>>;
/** The same for all brokers here, which follow one another as they do in a replica. */
const registry = new Registry();
let broker: Broker;
let node: BrokerSideTls & { serial: string };
let replica: BrokerSideTls;
const asked: string[] = [];
const revoked = new Set<string>();

beforeAll(async () => {
  authority = await makeTestAuthority();
  node = await hostTls(authority, nodeId);
  replica = await replicaTls(authority);
});
beforeEach(async () => {
  broker = await startBroker({
    tls: await brokerTls(authority),
    host: "127.0.0.1",
    port: 0,
    async authorizeNode(id, serial) {
      asked.push(`${id} ${serial}`);
      return id !== removedId && !revoked.has(serial);
    },
    log: pino({ level: "silent" }),
    registry,
  });
});
afterEach(async () => {
  revoked.clear();
  await Promise.all(clients.splice(0).map((client) => client.endAsync(true)));
  await broker.close();
});
afterAll(() => expect(asked).toContain(`${nodeId} ${node.serial}`));

async function dial(tls: Partial<BrokerSideTls>, options: mqtt.IClientOptions = {}): Promise<MqttClient> {
  const { cert, key, ca = [authority.pem] } = tls;
  const secret = cert === undefined || key === undefined ? {} : { cert, key };
  const client = new mqtt.MqttClient(
    () => connectTls({ host: "127.0.0.1", port: broker.port, ca: [...ca], ...secret }),
    {
      protocolVersion: 4,
      reconnectPeriod: 0,
      clientId: "x",
      ...options,
    },
  );
  clients.push(client);
  await new Promise<void>((resolve, reject) => {
    client.once("connect", () => resolve());
    client.once("error", reject);
    client.once("close", () => reject(new Error("closed")));
  });
  return client;
}

const closed = (client: MqttClient) => until("the end of the connection", () => !client.connected);

async function refusals(reason: string): Promise<number> {
  const values = (await registry.getSingleMetric("cloudpods_broker_refusals_total")?.get())?.values ?? [];
  return values.find((value) => value.labels["reason"] === reason)?.value ?? 0;
}

describe("connecting", () => {
  test("without a certificate is refused", async () => {
    await expect(dial({})).rejects.toThrow();
  });

  test("with a certificate of another authority is refused and counted", async () => {
    const stranger = await hostTls(await makeTestAuthority(), nodeId);
    await expect(dial({ ...stranger, ca: [authority.pem] })).rejects.toThrow();
    await until("the count", async () => (await refusals("TLS")) === 1);
  });

  test("as a removed node is refused and counted", async () => {
    await expect(dial(await hostTls(authority, removedId))).rejects.toThrow(/Not authorized/i);
    expect(await refusals("NODE_REFUSED")).toBe(1);
  });

  test("under somebody else's client id displaces nobody", async () => {
    const first = await dial(node, { clientId: "agent" });
    await dial(await hostTls(authority, otherId), { clientId: "agent" });
    await first.publishAsync(nodeTopics(nodeId).heartbeat, "still here", { qos: 1 });
    expect(first.connected).toBe(true);
  });

  test("twice under one's own client id ends the older connection", async () => {
    const first = await dial(node, { clientId: "agent" });
    await dial(node, { clientId: "agent" });
    await closed(first);
  });

  test("with a last will on a foreign topic is refused", async () => {
    const will = { topic: nodeTopics(otherId).status, payload: Buffer.from("gone"), qos: 1 as const, retain: true };
    await expect(dial(node, { will })).rejects.toThrow();
    expect(await refusals("FOREIGN_WILL")).toBe(1);
  });
});

describe("a node", () => {
  test("is heard by the control plane and hears its acknowledgements", async () => {
    const plane = await dial(replica);
    const agent = await dial(node);
    const heard: string[] = [];
    plane.on("message", (topic) => heard.push(topic));
    agent.on("message", (topic, payload) => heard.push(`${topic} ${payload.toString()}`));
    await plane.subscribeAsync(nodeTopics("+").samples, { qos: 1 });
    await agent.subscribeAsync(nodeTopics(nodeId).acks, { qos: 1 });
    await agent.publishAsync(nodeTopics(nodeId).samples, "x", { qos: 1 });
    await plane.publishAsync(nodeTopics(nodeId).acks, "ok", { qos: 1 });
    await until("both messages", () => heard.length === 2);
    expect(heard.toSorted()).toEqual([`${nodeTopics(nodeId).acks} ok`, nodeTopics(nodeId).samples]);
  });

  test("has its samples kept for whoever reads first, and confirmed then", async () => {
    const agent = await dial(node);
    const order: string[] = [];
    const confirmed = agent.publishAsync(nodeTopics(nodeId).samples, "early", { qos: 1 });
    void confirmed.then(() => order.push("confirmed"));
    const plane = await dial(replica);
    plane.on("message", (_topic, payload) => order.push(payload.toString()));
    await plane.subscribeAsync(nodeTopics("+").status, { qos: 1 });
    expect(order).toEqual([]);
    await plane.subscribeAsync(nodeTopics("+").samples, { qos: 1 });
    await until("the samples and their confirmation", () => order.length === 2);
    expect(order.toSorted()).toEqual(["confirmed", "early"]);
  });

  test("leaves its retained status and its will", async () => {
    const will = { topic: nodeTopics(nodeId).status, payload: Buffer.from("offline"), qos: 1 as const, retain: true };
    const agent = await dial(node, { will });
    await agent.publishAsync(nodeTopics(nodeId).status, "online", { qos: 1, retain: true });
    const plane = await dial(replica);
    const heard: string[] = [];
    plane.on("message", (_topic, payload) => heard.push(payload.toString()));
    await plane.subscribeAsync(nodeTopics("+").status, { qos: 1 });
    await until("the retained status", () => heard.at(-1) === "online");
    agent.stream.destroy();
    await until("the will", () => heard.at(-1) === "offline");
  });

  test.each([
    ["samples of another node", nodeTopics(otherId).samples, {}],
    ["its own acknowledgements", nodeTopics(nodeId).acks, {}],
    ["retained samples", nodeTopics(nodeId).samples, { retain: true }],
    ["anything else", "cloudpods/v1/control-plane/x/probe", {}],
  ])("that publishes %s loses its connection, and nobody hears it", async (_what, topic, options) => {
    const plane = await dial(replica);
    const heard: string[] = [];
    plane.on("message", (from) => heard.push(from));
    await plane.subscribeAsync("cloudpods/v1/#", { qos: 1 });
    const agent = await dial(node);
    agent.publish(topic, "x", { qos: 1, ...options });
    await closed(agent);
    await plane.publishAsync("cloudpods/v1/control-plane/end", "", { qos: 1 });
    await until("the marker", () => heard.includes("cloudpods/v1/control-plane/end"));
    expect(heard).toEqual(["cloudpods/v1/control-plane/end"]);
    expect(await refusals("FOREIGN_TOPIC")).toBe(1);
  });

  test.each([
    nodeTopics(otherId).acks,
    nodeTopics("+").acks,
    nodeTopics(nodeId).samples,
    "#",
    `$share/g/${nodeTopics(nodeId).acks}`,
  ])("that subscribes to %s loses its connection", async (filter) => {
    const agent = await dial(node);
    agent.subscribe(filter, { qos: 1 });
    await closed(agent);
    expect(await refusals("FOREIGN_SUBSCRIPTION")).toBe(1);
  });

  test("may send 256 KiB and not much more", async () => {
    await (await dial(replica)).subscribeAsync(nodeTopics("+").samples, { qos: 1 });
    const agent = await dial(node);
    await agent.publishAsync(nodeTopics(nodeId).samples, Buffer.alloc(256 * 1024), { qos: 1 });
    agent.publish(nodeTopics(nodeId).samples, Buffer.alloc(258 * 1024), { qos: 1 });
    await closed(agent);
    expect(await refusals("MESSAGE_TOO_LARGE")).toBe(1);
  });

  test("are disconnected when their certificate was revoked, and only those", async () => {
    const successor = await hostTls(authority, nodeId);
    const [replaced, agent, other] = [
      await dial(node),
      await dial(successor, { clientId: "y" }),
      await dial(await hostTls(authority, otherId)),
    ];
    expect(await broker.reviewNodes()).toBe(0);
    revoked.add(node.serial);
    expect(await broker.reviewNodes(otherId)).toBe(0);
    expect(await broker.reviewNodes(nodeId)).toBe(1);
    await closed(replaced);
    expect(agent.connected && other.connected).toBe(true);
    revoked.add(successor.serial);
    expect(await broker.reviewNodes()).toBe(1);
    await closed(agent);
    expect(other.connected).toBe(true);
  });
});

describe("a renewed certificate of the broker", () => {
  test("is shown to those who connect from then on", async () => {
    const next = await makeTestAuthority();
    broker.updateTls({ ...(await brokerTls(next)), ca: [authority.pem, next.pem] });
    await expect(dial(node)).rejects.toThrow();
    const agent = await dial({ ...node, ca: [next.pem] });
    expect(agent.connected).toBe(true);
  });
});
