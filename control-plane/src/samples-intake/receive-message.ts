import { setTimeout as sleep } from "node:timers/promises";
import { isUuid } from "@cloudpods/shared/ids";
import { parseNodeTopic } from "@cloudpods/shared/topics";
import type { ArrivedMessage } from "./broker-link.ts";
import type { HeartbeatBuffer } from "./heartbeat-buffer.ts";
import type { IngestMetrics } from "./ingest-metrics.ts";
import { readHeartbeat, readPresence } from "./read-heartbeat.ts";
import type { IncomingMessage } from "./store-messages.ts";
import type { WriteLanes } from "./write-lanes.ts";

/** Where messages go. */
export interface ReceiverOptions {
  readonly lanes: WriteLanes;
  readonly beats: HeartbeatBuffer;
  readonly metrics: Pick<IngestMetrics, "dropped">;
  /** How long a full queue holds up the broker before messages are let go. */
  readonly patienceMs: number;
}

/**
 * Sorts messages by their channel. A full queue holds up the broker for a while, because that costs the
 * least; then messages are let go until there is room, so that the connection and heartbeats live. Hosts
 * offer again what was let go, since it is never acknowledged to them.
 */
export function messageReceiver(options: ReceiverOptions): (message: ArrivedMessage) => Promise<void> | undefined {
  const { lanes, beats, metrics, patienceMs } = options;
  let fullSinceMs: number | undefined;

  async function waitForRoom(message: IncomingMessage): Promise<void> {
    fullSinceMs ??= Date.now();
    const leftMs = fullSinceMs + patienceMs - Date.now();
    if (leftMs > 0) {
      await Promise.race([lanes.room(), sleep(leftMs, undefined, { ref: false })]);
      if (lanes.offer(message)) {
        fullSinceMs = undefined;
        return;
      }
    }
    metrics.dropped("OVERLOADED");
  }

  return ({ topic, payload }: ArrivedMessage): Promise<void> | undefined => {
    const target = parseNodeTopic(topic);
    if (target === undefined || !isUuid(target.nodeId)) {
      metrics.dropped("UNKNOWN_TOPIC");
      return undefined;
    }
    const receivedAtMs = Date.now();
    if (target.channel === "samples") {
      const message = { nodeId: target.nodeId, payload, receivedAtMs };
      if (!lanes.offer(message)) return waitForRoom(message);
      fullSinceMs = undefined;
    } else if (target.channel === "heartbeat") {
      const heartbeat = readHeartbeat(payload);
      if (heartbeat === undefined) metrics.dropped("MALFORMED_HEARTBEAT");
      else beats.addHeartbeat({ nodeId: target.nodeId, receivedAtMs, heartbeat });
    } else if (target.channel === "status") {
      const online = readPresence(payload);
      if (online === undefined) metrics.dropped("MALFORMED_HEARTBEAT");
      else beats.addPresence({ nodeId: target.nodeId, online });
    }
    return undefined;
  };
}
