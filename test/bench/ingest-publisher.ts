import { parentPort, workerData } from "node:worker_threads";
import type { MqttClient } from "mqtt";
import { connectHost, sendAll, type BenchBroker, type BenchIdentity } from "./bench-host.ts";

/** One host and the batches that it sends, in order, encoded before the clock starts. */
export interface PublishingHost extends BenchIdentity {
  readonly payloads: readonly Uint8Array[];
}

/** What the publishing thread is started with. */
export interface PublisherWork {
  readonly broker: BenchBroker;
  readonly hosts: readonly PublishingHost[];
  /** Every so manieth batch is sent twice. */
  readonly repeatEvery: number;
}

const { broker, hosts, repeatEvery }: PublisherWork = workerData;

async function sendHost({ nodeId, payloads }: PublishingHost, client: MqttClient | undefined): Promise<void> {
  if (client === undefined) return;
  await sendAll(client, nodeId, {
    total: payloads.length,
    repeatEvery,
    batch(seq) {
      const { buffer, byteOffset, byteLength } = payloads[seq - 1] ?? new Uint8Array();
      return Buffer.from(buffer, byteOffset, byteLength);
    },
  });
}

const clients: MqttClient[] = [];
for (const host of hosts) clients.push(await connectHost(broker, host));
parentPort?.postMessage("connected");
parentPort?.once("message", () => {
  void Promise.all(hosts.map((host, index) => sendHost(host, clients[index]))).then(async () => {
    parentPort?.postMessage("durable");
    await Promise.all(clients.map((client) => client.endAsync(true)));
    parentPort?.close();
  });
});
