import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Registry } from "prom-client";
import type { Database } from "../platform/database.ts";
import { openAcknowledgements } from "./acknowledgements.ts";
import { openBrokerLink, type IngestTls } from "./broker-link.ts";
import { heartbeatBuffer } from "./heartbeat-buffer.ts";
import { writeHeartbeats } from "./heartbeats.ts";
import { hostingCache } from "./hosting.ts";
import { ingestMetrics, type IngestMetrics } from "./ingest-metrics.ts";
import { messageReceiver } from "./receive-message.ts";
import { storeMessages, type StoreContext } from "./store-messages.ts";
import { openStorePool } from "./store-pool.ts";
import type { SubscriptionMode } from "./subscriptions.ts";
import { usageDays } from "./usage-days.ts";
import { openWriteLanes } from "./write-lanes.ts";

/** What ingest needs. */
export interface IngestOptions {
  /** The owner's login, for heartbeats. */
  readonly database: Database;
  /** The same login's connection string: COPY needs connections of its own, which do not pipeline. */
  readonly databaseUrl: string;
  /** `mqtts://host:port` of the broker. */
  readonly mqttUrl: () => string;
  /** Asked before each connection, so that a renewed certificate is used. */
  readonly tls: () => IngestTls;
  /** Id of this replica (UUID). */
  readonly replicaId: string;
  readonly log: Logger;
  readonly registry: Registry;
  /** Ms since 1970 UTC, which samples and days are judged by; Date.now by default. */
  readonly clock?: () => number;
}

/** Running ingest. */
export interface Ingest {
  readonly mode: () => SubscriptionMode;
  /** Stores what was received, at the latest within 10 s, and disconnects. */
  stop(): Promise<void>;
}

const laneLimits = { lanes: 2, groupBytesMax: 2 * 1024 * 1024, lingerMs: 5, queueBytesMax: 32 * 1024 * 1024 };
/** How long a full queue holds up the broker before messages are let go; well below the keep-alive. */
const patienceMs = 20_000;
const heartbeatFlushMs = 250;
const upkeepMs = 3_600_000;
const stopDeadlineMs = 10_000;

/** Starts to store what hosts send. What is not stored is not acknowledged, so hosts offer it again. */
export function startIngest(options: IngestOptions): Ingest {
  const { log, clock = Date.now } = options;
  const stopping = new AbortController();
  const pool = openStorePool(options.databaseUrl, laneLimits.lanes + 2);
  const context: StoreContext = { pool, hosting: hostingCache(pool, clock), days: usageDays(pool), clock };
  const metrics: IngestMetrics = ingestMetrics(options.registry, {
    queuedBytes: () => lanes.queuedBytes(),
    lagSeconds: () => lanes.oldestAgeMs(Date.now()) / 1_000,
    mode: () => link.mode(),
  });
  const acknowledgements = openAcknowledgements(
    (topic, payload) => link.publish(topic, payload),
    (error) => log.debug({ err: error }, "an acknowledgement was not delivered"),
  );
  const lanes = openWriteLanes(laneLimits, {
    async store(messages) {
      const startedMs = performance.now();
      const outcome = await storeMessages(context, messages);
      metrics.stored(outcome, (performance.now() - startedMs) / 1_000);
      return outcome;
    },
    stored: (outcome) => acknowledgements.add(outcome.acknowledgements),
    failed(error, attempt) {
      metrics.failed();
      log.warn({ err: error, attempt }, "samples could not be stored; trying again");
    },
    dropped(message, error) {
      metrics.dropped("NOT_EVEN_DEAD_LETTER");
      log.error({ err: error, nodeId: message.nodeId }, "a message could not be stored nor kept as a dead letter");
    },
    signal: stopping.signal,
  });
  const beats = heartbeatBuffer(
    async (heartbeats, presences) => {
      const written = await writeHeartbeats(options.database, heartbeats, presences);
      metrics.dropped("HEARTBEAT_REFUSED", written.refused);
      return written;
    },
    (error) => log.warn({ err: error }, "heartbeats could not be written; trying again"),
  );
  const link = openBrokerLink({ ...options, arrived: messageReceiver({ lanes, beats, metrics, patienceMs }) });
  const loops = [
    repeat(stopping.signal, heartbeatFlushMs, () => beats.flush()),
    repeat(stopping.signal, upkeepMs, () => upkeep(options, context)),
  ];

  async function stop(): Promise<void> {
    const deadline = sleep(stopDeadlineMs, undefined, { ref: false });
    // Without the subscriptions' end the broker's messages to us are lost with the connection, and come again.
    await link.unsubscribe().catch((error: unknown) => log.debug({ err: error }, "the broker was not told of the end"));
    await Promise.race([lanes.drain().then(() => acknowledgements.flushed()), deadline]);
    stopping.abort();
    await Promise.race([Promise.all([...loops, lanes.drain(), beats.flush()]), deadline]);
    await link.close();
    await pool.close();
  }
  let stopped: Promise<void> | undefined;
  return { mode: () => link.mode(), stop: () => (stopped ??= stop()) };
}

async function upkeep(options: IngestOptions, context: StoreContext): Promise<void> {
  try {
    await context.days.makeAhead(context.clock());
  } catch (error) {
    options.log.warn({ err: error }, "the upkeep of usage tables failed; trying again");
    throw error;
  }
}

/** Runs work at once and then again and again; a failure is tried again at the next turn, at the latest in a minute. */
async function repeat(signal: AbortSignal, everyMs: number, work: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    const pauseMs = await work().then(
      () => everyMs,
      () => Math.min(everyMs, 60_000),
    );
    // Rejects when stopped, which the condition asks next.
    await sleep(pauseMs, undefined, { signal }).catch(() => {});
  }
}
