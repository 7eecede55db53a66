import { connect as connectTls } from "node:tls";
import { parentPort, workerData } from "node:worker_threads";
import mqtt, { type MqttClient } from "mqtt";
import { SampleAcks } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { nodeTopics } from "@cloudpods/shared/topics";

/** One host: its certificate and the batches that it sends, in order, encoded before the clock starts. */
export interface PublishingHost {
  readonly nodeId: string;
  readonly cert: string;
  readonly key: string;
  readonly payloads: readonly Uint8Array[];
}

/** What the publishing thread is started with. */
export interface PublisherWork {
  readonly port: number;
  readonly ca: string;
  readonly hosts: readonly PublishingHost[];
  /** Every so manieth batch is sent twice. */
  readonly repeatEvery: number;
}

/** Hosts have at most so many batches under way. */
const windowSize = 8;

async function connectHost({ port, ca }: PublisherWork, { nodeId, cert, key }: PublishingHost): Promise<MqttClient> {
  const client = new mqtt.MqttClient(() => connectTls({ host: "127.0.0.1", port, cert, key, ca }), {
    protocolVersion: 4,
    clientId: nodeId,
  });
  await new Promise((resolve) => client.once("connect", resolve));
  await client.subscribeAsync(nodeTopics(nodeId).acks, { qos: 1 });
  return client;
}

/** Sends all batches of a host; fulfilled when the last one is acknowledged as durable. */
function publishAll(work: PublisherWork, host: PublishingHost, client: MqttClient): Promise<void> {
  const topic = nodeTopics(host.nodeId).samples;
  const total = host.payloads.length;
  let sent = 0;
  const send = (upTo: number) => {
    while (sent < Math.min(total, upTo)) {
      const payload = host.payloads[sent++];
      if (payload === undefined) return;
      const copies = sent % work.repeatEvery === 0 ? 2 : 1;
      for (let copy = 0; copy < copies; copy++)
        client.publish(topic, Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength), { qos: 1 });
    }
  };
  return new Promise((resolve) => {
    client.on("message", (_topic, payload) => {
      const durable = Number(SampleAcks.decode(payload).contiguousSeq);
      send(durable + windowSize);
      if (durable === total) resolve();
    });
    send(windowSize);
  });
}

const work: PublisherWork = workerData;
const clients: MqttClient[] = [];
for (const host of work.hosts) clients.push(await connectHost(work, host));
parentPort?.postMessage("connected");
parentPort?.once("message", () => {
  void Promise.all(work.hosts.map((host, index) => publishAll(work, host, clients[index] as MqttClient))).then(
    async () => {
      parentPort?.postMessage("durable");
      await Promise.all(clients.map((client) => client.endAsync(true)));
      parentPort?.close();
    },
  );
});
