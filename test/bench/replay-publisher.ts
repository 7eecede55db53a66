import { closeSync, openSync, readSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import type { MqttClient } from "mqtt";
import { connectHost, sendAll, type BenchBroker, type BenchIdentity } from "./bench-host.ts";

/** A host that was cut off, and the file in which its batches wait, each after its length. */
export interface ReplayingHost extends BenchIdentity {
  readonly spoolFile: string;
  readonly batches: number;
}

/** What the thread of the returning hosts is started with. */
export interface ReplayWork {
  readonly broker: BenchBroker;
  readonly hosts: readonly ReplayingHost[];
  /** Every so manieth batch is sent twice. */
  readonly repeatEvery: number;
}

const { broker, hosts, repeatEvery }: ReplayWork = workerData;

async function replay({ nodeId, spoolFile, batches }: ReplayingHost, client: MqttClient | undefined): Promise<void> {
  if (client === undefined) return;
  const file = openSync(spoolFile, "r");
  const header = Buffer.alloc(4);
  const batch = () => {
    readSync(file, header);
    const payload = Buffer.allocUnsafe(header.readUInt32BE());
    readSync(file, payload);
    return payload;
  };
  await sendAll(client, nodeId, { total: batches, repeatEvery, batch });
  closeSync(file);
}

const clients: MqttClient[] = [];
for (const host of hosts) clients.push(await connectHost(broker, host));
parentPort?.postMessage("connected");
parentPort?.once("message", () => {
  void Promise.all(hosts.map((host, index) => replay(host, clients[index]))).then(async () => {
    parentPort?.postMessage("durable");
    await Promise.all(clients.map((client) => client.endAsync(true)));
    parentPort?.close();
  });
});
