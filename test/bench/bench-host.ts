import { connect as connectTls } from "node:tls";
import mqtt, { type MqttClient } from "mqtt";
import { SampleAcks } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { nodeTopics } from "@cloudpods/shared/topics";

/** Where hosts connect, and whom they trust (PEM). */
export interface BenchBroker {
  readonly port: number;
  readonly ca: string;
}

/** Who a host is; PEM. */
export interface BenchIdentity {
  readonly nodeId: string;
  readonly cert: string;
  readonly key: string;
}

/** Hosts have at most so many batches under way. */
export const windowSize = 8;

/** Connects a host and subscribes its acknowledgements. */
export async function connectHost(
  { port, ca }: BenchBroker,
  { nodeId, cert, key }: BenchIdentity,
): Promise<MqttClient> {
  const client = new mqtt.MqttClient(() => connectTls({ host: "127.0.0.1", port, cert, key, ca }), {
    protocolVersion: 4,
    clientId: nodeId,
  });
  await new Promise((resolve) => client.once("connect", resolve));
  await client.subscribeAsync(nodeTopics(nodeId).acks, { qos: 1 });
  return client;
}

/** Calls back with the number up to which everything is durable. */
export function onDurable(client: MqttClient, durableUpTo: (seq: number) => void): void {
  client.on("message", (_topic, payload) => durableUpTo(Number(SampleAcks.decode(payload).contiguousSeq)));
}

/**
 * Sends the batches 1 to `total` of a host in order, of which at most `windowSize` are under way; every so manieth
 * is sent twice. Fulfilled when the last one is acknowledged as durable.
 */
export async function sendAll(
  client: MqttClient,
  nodeId: string,
  work: { readonly total: number; readonly repeatEvery: number; readonly batch: (seq: number) => Buffer },
): Promise<void> {
  const topic = nodeTopics(nodeId).samples;
  let sent = 0;
  const send = (upTo: number) => {
    while (sent < Math.min(work.total, upTo)) {
      const payload = work.batch(++sent);
      const copies = sent % work.repeatEvery === 0 ? 2 : 1;
      for (let copy = 0; copy < copies; copy++) client.publish(topic, payload, { qos: 1 });
    }
  };
  await new Promise<void>((resolve) => {
    onDurable(client, (durable) => {
      send(durable + windowSize);
      if (durable === work.total) resolve();
    });
    send(windowSize);
  });
}
