import { setTimeout as sleep } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import type { MqttClient } from "mqtt";
import { nodeTopics } from "@cloudpods/shared/topics";
import { newId } from "@cloudpods/shared/ids";
import type { FleetNode } from "../support/telemetry-fleet.ts";
import { connectHost, onDurable, windowSize, type BenchBroker, type BenchIdentity } from "./bench-host.ts";
import { minuteOf } from "./ingest-under-bench.ts";

/** A host that was never cut off. */
export interface LiveHost extends BenchIdentity {
  readonly node: FleetNode;
}

/** What the thread of the live hosts is started with. */
export interface LiveWork {
  readonly broker: BenchBroker;
  readonly hosts: readonly LiveHost[];
  readonly intervalMs: number;
}

/** When a batch was due, and how long after that it was known to be durable. */
export interface LiveLag {
  readonly dueMs: number;
  readonly lagMs: number;
}

const { broker, hosts, intervalMs }: LiveWork = workerData;
const stopping = new AbortController();

/** Sends a batch each interval, however long the former ones take; more than a host may have under way it keeps. */
async function beLive({ nodeId, node }: LiveHost, client: MqttClient, offsetMs: number): Promise<LiveLag[]> {
  const spoolId = newId();
  const due: number[] = [];
  const lags: LiveLag[] = [];
  let sent = 0;
  const send = () => {
    while (sent < Math.min(due.length, lags.length + windowSize)) {
      const payload = minuteOf(node, spoolId, sent + 1, due[sent++] ?? 0);
      client.publish(nodeTopics(nodeId).samples, Buffer.from(payload), { qos: 1 });
    }
  };
  const finished = Promise.withResolvers<void>();
  onDurable(client, (durable) => {
    for (const dueMs of due.slice(lags.length, durable)) lags.push({ dueMs, lagMs: Date.now() - dueMs });
    send();
    if (stopping.signal.aborted && lags.length === due.length) finished.resolve();
  });
  let nextMs = Date.now() + offsetMs;
  while (!stopping.signal.aborted) {
    await sleep(Math.max(0, nextMs - Date.now()), undefined, { signal: stopping.signal }).catch(() => {});
    if (stopping.signal.aborted) break;
    due.push(nextMs);
    nextMs += intervalMs;
    send();
  }
  if (lags.length < due.length) await finished.promise;
  return lags;
}

const clients: MqttClient[] = [];
for (const host of hosts) clients.push(await connectHost(broker, host));
parentPort?.once("message", () => stopping.abort());
parentPort?.postMessage("connected");
const lags = await Promise.all(
  clients.flatMap((client, index) => {
    const host = hosts[index];
    // Spread over the interval, so that no figure is about a burst.
    return host === undefined ? [] : [beLive(host, client, Math.floor((index * intervalMs) / hosts.length))];
  }),
);
parentPort?.postMessage(lags.flat());
await Promise.all(clients.map((client) => client.endAsync(true)));
parentPort?.close();
