import { Heartbeat, NodePresence, SampleAcks } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import { type NodeTopics, nodeTopics } from "@cloudpods/shared/topics";
import { type IClientOptions, type MqttClient, connect } from "mqtt";
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
  return new MqttTelemetry(options);
}

class MqttTelemetry implements Telemetry {
  readonly #options: TelemetryOptions;
  readonly #topics: NodeTopics;
  #brokerUrl: string;
  #credentials: TelemetryCredentials;
  #heartbeatIntervalMs: number;
  #client: MqttClient | undefined;
  #failures = 0;
  /** Samples published on the present connection that the broker has not taken over. */
  #unconfirmed = 0;
  #isStarted = false;
  #retryTimer: NodeJS.Timeout | undefined;
  #offerTimer: NodeJS.Timeout | undefined;
  #heartbeatTimer: NodeJS.Timeout | undefined;

  constructor(options: TelemetryOptions) {
    this.#options = options;
    this.#topics = nodeTopics(options.nodeId);
    this.#brokerUrl = options.brokerUrl;
    this.#credentials = options.credentials;
    this.#heartbeatIntervalMs = options.heartbeatIntervalMs;
  }

  start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#offerTimer = setInterval(() => this.offerNow(), OFFER_INTERVAL_MS);
    this.#open();
  }

  async stop(): Promise<void> {
    this.#isStarted = false;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#heartbeatTimer);
    clearInterval(this.#offerTimer);
    const last = this.#client;
    this.#client = undefined;
    if (last !== undefined) await sayGoodbye(last, this.#topics.status, this.#presence(false));
  }

  isConnected(): boolean {
    return this.#client?.connected === true;
  }

  offerNow(): void {
    const client = this.#client;
    if (client?.connected !== true) return;
    const { log, spool } = this.#options;
    if (this.#unconfirmed >= MAX_UNCONFIRMED) {
      log.warn({ unconfirmed: this.#unconfirmed }, "the broker takes nothing over: reconnecting");
      client.end(true);
      return;
    }
    try {
      for (const { payload } of spool.takeOffers()) {
        this.#unconfirmed += 1;
        client.publish(this.#topics.samples, Buffer.from(payload), { qos: 1 }, () => {
          if (this.#client === client) this.#unconfirmed -= 1;
        });
      }
    } catch (error) {
      log.warn({ reason: messageOf(error) }, "samples could not be offered");
    }
  }

  updateCredentials(credentials: TelemetryCredentials): void {
    this.#credentials = credentials;
    this.#reopen();
  }

  configure(settings: { readonly brokerUrl: string; readonly heartbeatIntervalMs: number }): void {
    if (settings.heartbeatIntervalMs !== this.#heartbeatIntervalMs) {
      this.#heartbeatIntervalMs = settings.heartbeatIntervalMs;
      void this.#beat();
    }
    if (settings.brokerUrl === this.#brokerUrl) return;
    this.#brokerUrl = settings.brokerUrl;
    this.#reopen();
  }

  #presence(online: boolean): Buffer {
    const { bootId } = this.#options;
    return Buffer.from(NodePresence.encode({ online, bootId }).finish());
  }

  #open(): void {
    try {
      this.#openNow();
    } catch (error) {
      // An unusable address or certificate throws at once; a later Welcome or renewal may mend it.
      this.#options.log.warn({ reason: messageOf(error) }, "no connection to the broker can be made");
      this.#reopenLater();
    }
  }

  #openNow(): void {
    const { nodeId, log } = this.#options;
    const { certificatePem, privateKeyPem, caBundlePem } = this.#credentials;
    const { acks, status } = this.#topics;
    const client = connect({
      ...addressOf(this.#brokerUrl),
      protocolVersion: 4,
      clientId: `cloudpods-agent-${nodeId}`,
      clean: true,
      reconnectPeriod: 0,
      connectTimeout: CONNECT_TIMEOUT_MS,
      keepalive: KEEPALIVE_SECONDS,
      cert: certificatePem,
      key: privateKeyPem,
      ca: caBundlePem,
      will: { topic: status, payload: this.#presence(false), qos: 1, retain: true },
    });
    this.#client = client;
    this.#unconfirmed = 0;
    client.on("connect", () => this.#greet(client));
    client.on("message", (topic, payload) => {
      if (topic === acks) this.#takeAcks(payload);
    });
    client.on("error", (error) => log.warn({ reason: messageOf(error) }, "broker connection failed"));
    client.on("close", () => {
      client.end(true);
      // A client that was replaced on purpose has a successor already.
      if (this.#client !== client) return;
      this.#client = undefined;
      this.#reopenLater();
    });
  }

  #greet(client: MqttClient): void {
    const { log, spool } = this.#options;
    log.info({ brokerUrl: this.#brokerUrl }, "connected to the broker");
    client.publish(this.#topics.status, this.#presence(true), { qos: 1, retain: true });
    client.subscribe(this.#topics.acks, { qos: 1 }, (error, granted) => {
      // 0x80 is how MQTT 3.1.1 refuses a subscription.
      const isRefused = granted?.some(({ qos }) => qos >= 0x80) === true;
      if (error !== null || isRefused) {
        const reason = error === null ? "the broker refuses the subscription" : messageOf(error);
        log.warn({ reason }, "no acknowledgements can be received");
        client.end(true);
        return;
      }
      // Only now can an answer reach us.
      this.#failures = 0;
      spool.retryNow();
      this.offerNow();
      void this.#beat();
    });
  }

  #reopenLater(): void {
    clearTimeout(this.#retryTimer);
    if (!this.#isStarted) return;
    const waitMs = fullJitterMs(this.#failures, Math.random(), BACKOFF);
    this.#failures += 1;
    this.#retryTimer = setTimeout(() => this.#open(), waitMs);
  }

  /** Ends the connection, if any, and opens one with what is now configured. */
  #reopen(): void {
    const former = this.#client;
    this.#client = undefined;
    this.#failures = 0;
    clearTimeout(this.#retryTimer);
    former?.end(true);
    if (this.#isStarted) this.#open();
  }

  #takeAcks(payload: Buffer): void {
    const { log, spool } = this.#options;
    try {
      spool.acknowledge(SampleAcks.decode(payload));
    } catch (error) {
      log.warn({ reason: messageOf(error) }, "an acknowledgement was not understood");
      return;
    }
    this.offerNow();
  }

  async #beat(): Promise<void> {
    clearTimeout(this.#heartbeatTimer);
    if (!this.#isStarted) return;
    this.#heartbeatTimer = setTimeout(() => void this.#beat(), this.#heartbeatIntervalMs);
    if (!this.isConnected()) return;
    try {
      const heartbeat = await this.#options.collectHeartbeat();
      const payload = Buffer.from(Heartbeat.encode(heartbeat).finish());
      // A heartbeat that is late is worth nothing: no acknowledgement, no repetition.
      if (this.isConnected()) this.#client?.publish(this.#topics.heartbeat, payload, { qos: 0 });
    } catch (error) {
      this.#options.log.warn({ reason: messageOf(error) }, "no heartbeat could be made");
    }
  }
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

/** Taken apart here: what takes an address apart inside the client is deprecated, and says so at every start. @throws TypeError */
function addressOf(brokerUrl: string): Pick<IClientOptions, "protocol" | "host" | "port"> {
  const { protocol, hostname, port } = new URL(brokerUrl);
  // Brackets are the address's and not the host's.
  const host = hostname.replaceAll(/[[\]]/g, "");
  return { protocol: protocol === "mqtt:" ? "mqtt" : "mqtts", host, ...(port === "" ? {} : { port: Number(port) }) };
}
