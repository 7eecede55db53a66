import { Heartbeat, NodePresence, SampleAcks } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { nodeTopics } from "@cloudpods/shared/topics";
import { type MqttClient, connect } from "mqtt";
import { messageOf } from "../agent-error.ts";
import { fullJitterMs } from "../backoff.ts";
import type { Spool } from "../spool/spool.ts";

/** The agent's identity towards the broker, PEM. */
export interface TelemetryCredentials {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  /** Every certificate authority that the broker's certificate may come from. */
  readonly caBundlePem: string;
}

/** What the publisher needs. */
export interface TelemetryOptions {
  readonly nodeId: string;
  readonly bootId: string;
  /** "mqtts://host:port"; the plain "mqtt:" sends no certificate. */
  readonly brokerUrl: string;
  readonly credentials: TelemetryCredentials;
  readonly heartbeatIntervalMs: number;
  readonly collectHeartbeat: () => Promise<Heartbeat>;
  readonly spool: Pick<Spool, "takeOffers" | "retryNow" | "acknowledge">;
  readonly log: TelemetryLog;
}

/** What the publisher logs to; pino's Logger fits. */
export interface TelemetryLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

/** The MQTT side of the agent: samples and heartbeats out, acknowledgements in. */
export interface Telemetry {
  /** Begins to connect, for ever, with back-off. */
  start(): void;
  /** Says goodbye on the status topic and ends; at most two seconds. */
  stop(): Promise<void>;
  isConnected(): boolean;
  /** Publishes what the spool has; called after each tick. */
  offerNow(): void;
  /** Reconnects with a renewed certificate or a new CA bundle. */
  updateCredentials(credentials: TelemetryCredentials): void;
  /** Takes over Welcome.broker_url and Welcome.heartbeat_interval_ms. */
  configure(settings: { readonly brokerUrl: string; readonly heartbeatIntervalMs: number }): void;
}

/** How long a connection may take to come up, TLS included, ms. */
const CONNECT_TIMEOUT_MS = 10_000;
/** Two missed pings and the connection is given up, s. */
const KEEPALIVE_SECONDS = 15;
const BACKOFF = { baseMs: 500, capMs: 30_000 };
/** How often batches whose acknowledgement is overdue are looked for, ms. */
const OFFER_INTERVAL_MS = 1000;
const GOODBYE_TIMEOUT_MS = 2000;
/** Messages that may wait in the client for the broker: two rounds of everything that is on offer. */
const MAX_UNCONFIRMED = 16;

/**
 * Makes the publisher; it does nothing before `start`.
 *
 * Sessions are clean and the client's own store is not used: what matters is in the spool, and an
 * acknowledgement that was missed comes again when its batch is offered again. The broker's PUBACK
 * proves nothing (some brokers send it for what they drop) and is not waited for.
 */
export function createTelemetry(options: TelemetryOptions): Telemetry {
  const { nodeId, bootId, spool, log } = options;
  const topics = nodeTopics(nodeId);
  let { brokerUrl, credentials, heartbeatIntervalMs } = options;
  let client: MqttClient | undefined;
  let failures = 0;
  /** Samples published on the present connection that the broker has not taken over. */
  let unconfirmed = 0;
  let isStarted = false;
  let retryTimer: NodeJS.Timeout | undefined;
  let offerTimer: NodeJS.Timeout | undefined;
  let heartbeatTimer: NodeJS.Timeout | undefined;

  const presence = (online: boolean): Buffer =>
    Buffer.from(NodePresence.encode({ online, bootId }).finish());

  function open(): void {
    try {
      openNow();
    } catch (error) {
      // An unusable address or certificate throws at once; a later Welcome or renewal may mend it.
      log.warn({ reason: messageOf(error) }, "no connection to the broker can be made");
      reopenLater();
    }
  }

  function openNow(): void {
    const { certificatePem, privateKeyPem, caBundlePem } = credentials;
    const opened = connect(brokerUrl, {
      protocolVersion: 4,
      clientId: `cloudpods-agent-${nodeId}`,
      clean: true,
      reconnectPeriod: 0,
      connectTimeout: CONNECT_TIMEOUT_MS,
      keepalive: KEEPALIVE_SECONDS,
      cert: certificatePem,
      key: privateKeyPem,
      ca: caBundlePem,
      will: { topic: topics.status, payload: presence(false), qos: 1, retain: true },
    });
    client = opened;
    unconfirmed = 0;
    opened.on("connect", () => greet(opened));
    opened.on("message", (topic, payload) => {
      if (topic === topics.acks) takeAcks(payload);
    });
    opened.on("error", (error) => log.warn({ reason: messageOf(error) }, "broker connection failed"));
    opened.on("close", () => {
      opened.end(true);
      // A client that was replaced on purpose has a successor already.
      if (client !== opened) return;
      client = undefined;
      reopenLater();
    });
  }

  function greet(opened: MqttClient): void {
    failures = 0;
    log.info({ brokerUrl }, "connected to the broker");
    opened.publish(topics.status, presence(true), { qos: 1, retain: true });
    opened.subscribe(topics.acks, { qos: 1 }, (error, granted) => {
      const isRefused = granted?.some(({ qos }) => qos >= 0x80) === true;
      if (error !== null || isRefused) {
        log.warn({ reason: error === null ? "refused" : messageOf(error) }, "no acknowledgements");
        opened.end(true);
        return;
      }
      // Only now can an answer reach us.
      spool.retryNow();
      offerNow();
      void beat();
    });
  }

  function reopenLater(): void {
    clearTimeout(retryTimer);
    if (!isStarted) return;
    const waitMs = fullJitterMs(failures, Math.random(), BACKOFF);
    failures += 1;
    retryTimer = setTimeout(open, waitMs);
  }

  /** Ends the connection, if any, and opens one with what is now configured. */
  function reopen(): void {
    const former = client;
    client = undefined;
    clearTimeout(retryTimer);
    former?.end(true);
    if (isStarted) open();
  }

  function takeAcks(payload: Buffer): void {
    try {
      spool.acknowledge(SampleAcks.decode(payload));
    } catch (error) {
      log.warn({ reason: messageOf(error) }, "an acknowledgement was not understood");
      return;
    }
    offerNow();
  }

  function offerNow(): void {
    if (client?.connected !== true) return;
    const opened = client;
    if (unconfirmed >= MAX_UNCONFIRMED) {
      log.warn({ unconfirmed }, "the broker takes nothing over: reconnecting");
      opened.end(true);
      return;
    }
    try {
      for (const { payload } of spool.takeOffers()) {
        unconfirmed += 1;
        opened.publish(topics.samples, Buffer.from(payload), { qos: 1 }, () => {
          if (client === opened) unconfirmed -= 1;
        });
      }
    } catch (error) {
      log.warn({ reason: messageOf(error) }, "samples could not be offered");
    }
  }

  async function beat(): Promise<void> {
    clearTimeout(heartbeatTimer);
    if (!isStarted) return;
    heartbeatTimer = setTimeout(() => void beat(), heartbeatIntervalMs);
    if (client?.connected !== true) return;
    try {
      const heartbeat = await options.collectHeartbeat();
      const payload = Buffer.from(Heartbeat.encode(heartbeat).finish());
      // A heartbeat that is late is worth nothing: no acknowledgement, no repetition.
      if (client?.connected === true) client.publish(topics.heartbeat, payload, { qos: 0 });
    } catch (error) {
      log.warn({ reason: messageOf(error) }, "no heartbeat could be made");
    }
  }

  return {
    start() {
      if (isStarted) return;
      isStarted = true;
      offerTimer = setInterval(offerNow, OFFER_INTERVAL_MS);
      open();
    },
    async stop() {
      isStarted = false;
      clearTimeout(retryTimer);
      clearTimeout(heartbeatTimer);
      clearInterval(offerTimer);
      const last = client;
      client = undefined;
      if (last !== undefined) await sayGoodbye(last, topics.status, presence(false));
    },
    isConnected: () => client?.connected === true,
    offerNow,
    updateCredentials(next) {
      credentials = next;
      reopen();
    },
    configure(settings) {
      if (settings.heartbeatIntervalMs !== heartbeatIntervalMs) {
        heartbeatIntervalMs = settings.heartbeatIntervalMs;
        void beat();
      }
      if (settings.brokerUrl === brokerUrl) return;
      brokerUrl = settings.brokerUrl;
      failures = 0;
      reopen();
    },
  };
}

/** A regular end of a connection suppresses the last will, so the absence is told before it. */
async function sayGoodbye(client: MqttClient, topic: string, payload: Buffer): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, GOODBYE_TIMEOUT_MS);
  });
  const goodbye = async (): Promise<void> => {
    if (!client.connected) return;
    await client.publishAsync(topic, payload, { qos: 1, retain: true });
    await client.endAsync();
  };
  await Promise.race([goodbye().catch(() => undefined), deadline]);
  clearTimeout(timer);
  client.end(true);
}
