import { connect as connectTls } from "node:tls";
import mqtt, { type MqttClient } from "mqtt";
import { SampleAcks, type SampleBatch } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { nodeTopics } from "@cloudpods/shared/topics";
import type { BrokerSideTls } from "./broker-identities.ts";
import { payloadOf } from "./telemetry-fleet.ts";

/** A host that keeps offering its batches until they are acknowledged, as agents do. */
export interface PublishingHost {
  readonly client: MqttClient;
  /** Adds a batch to those that are offered. */
  offer(...batches: SampleBatch[]): void;
  /** Batches that are not acknowledged yet. */
  waiting(): number;
  close(): Promise<void>;
}

const offerAgainMs = 500;

/** Connects a host to a broker on this machine; with `will` it leaves the given last message on its status topic. */
export async function publishingHost(
  nodeId: string,
  port: number,
  tls: BrokerSideTls,
  will?: Uint8Array,
): Promise<PublishingHost> {
  const topics = nodeTopics(nodeId);
  const unacknowledged = new Map<bigint, SampleBatch>();
  const client = new mqtt.MqttClient(
    () => connectTls({ host: "127.0.0.1", port, cert: tls.cert, key: tls.key, ca: [...tls.ca] }),
    {
      protocolVersion: 4,
      clientId: `agent-${nodeId}`,
      clean: true,
      reconnectPeriod: 200,
      ...(will === undefined
        ? {}
        : { will: { topic: topics.status, payload: Buffer.from(will), qos: 1 as const, retain: true } }),
    },
  );
  client.on("error", () => {}); // it connects again
  const send = (batch: SampleBatch) => client.publish(topics.samples, Buffer.from(payloadOf(batch)), { qos: 1 });
  client.on("message", (_topic, payload) => {
    const acks = SampleAcks.decode(payload);
    for (const [seq, batch] of unacknowledged) {
      const isDurable =
        batch.seqTo <= acks.contiguousSeq ||
        acks.ranges.some((range) => range.from <= batch.seqFrom && batch.seqTo <= range.to);
      if (acks.spoolId === batch.spoolId && isDurable) unacknowledged.delete(seq);
    }
  });
  await client.subscribeAsync(topics.acks, { qos: 1 });
  const timer = setInterval(() => {
    if (client.connected) for (const batch of [...unacknowledged.values()].slice(0, 8)) send(batch);
  }, offerAgainMs);
  return {
    client,
    offer(...batches) {
      for (const batch of batches) {
        unacknowledged.set(batch.seqFrom, batch);
        if (client.connected) send(batch);
      }
    },
    waiting: () => unacknowledged.size,
    async close() {
      clearInterval(timer);
      await client.endAsync(true);
    },
  };
}
