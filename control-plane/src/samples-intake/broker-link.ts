import { connect as connectTls } from "node:tls";
import mqtt, { type IPublishPacket, type MqttClient } from "mqtt";
import { Subscriptions, type SubscriptionMode, type SubscriptionOptions } from "./subscriptions.ts";

/** A client certificate of the replica (CN `control-plane`), and whom it trusts; all PEM. */
export interface IngestTls {
  readonly cert: string;
  readonly key: string;
  readonly ca: readonly string[];
}

/** A message from the broker. */
export interface ArrivedMessage {
  readonly topic: string;
  readonly payload: Buffer;
}

/** What the link to the broker needs. */
export interface BrokerLinkOptions extends SubscriptionOptions {
  /** Asked before each connection, because the embedded broker moves with the replica that runs it. */
  readonly mqttUrl: () => string;
  readonly tls: () => IngestTls;
  /** Takes a message; the next one comes, and this one's delivery is confirmed, when the promise is fulfilled. */
  readonly arrived: (message: ArrivedMessage) => Promise<void> | undefined;
}

/** The replica's connection to the broker; it is kept up until `close`. */
export interface BrokerLink {
  readonly mode: () => SubscriptionMode;
  publish(topic: string, payload: Uint8Array): Promise<void>;
  /** Ends the subscriptions, so that another replica gets what comes; publishing still works. */
  unsubscribe(): Promise<void>;
  close(): Promise<void>;
}

const keepaliveSeconds = 60;
const answerDeadlineMs = 10_000;

/** Connects to the broker, subscribes, and does both again whenever the connection is lost. */
export function openBrokerLink(options: BrokerLinkOptions): BrokerLink {
  const client = new mqtt.MqttClient(() => dial(options), {
    protocolVersion: 4,
    clientId: `control-plane-${options.replicaId}`,
    clean: true,
    keepalive: keepaliveSeconds,
    resubscribe: false,
    // Replicas that lost the broker together shall not come back together.
    reconnectPeriod: 1_000 + Math.floor(Math.random() * 1_000),
    connectTimeout: 10_000,
  });
  const subscriptions = new Subscriptions(client, options);
  // Called for each message in turn; calling back confirms it to the broker and lets the next one in.
  client.handleMessage = (packet, done) => {
    const message = asMessage(packet);
    const taken =
      message === undefined || subscriptions.takesProbe(message.topic) ? undefined : options.arrived(message);
    if (taken === undefined) done();
    else taken.then(() => done(), done);
  };
  client.on("error", (error) => options.log.warn({ err: error }, "broker connection failed"));
  client.on("close", () => subscriptions.disconnected());
  client.on("connect", () => subscriptions.connected());
  return {
    mode: () => subscriptions.mode,
    async publish(topic, payload) {
      if (!client.connected) throw new Error("the broker is not connected");
      await withDeadline(client.publishAsync(topic, Buffer.from(payload), { qos: 1 }), answerDeadlineMs);
    },
    unsubscribe: () => withDeadline(subscriptions.end(), answerDeadlineMs),
    close: () => endClient(client),
  };
}

function dial({ mqttUrl, tls }: BrokerLinkOptions) {
  const url = new URL(mqttUrl());
  const { cert, key, ca } = tls();
  return connectTls({
    host: url.hostname,
    port: Number(url.port || 8883),
    cert,
    key,
    ca: [...ca],
    minVersion: "TLSv1.2",
  });
}

function asMessage(packet: { readonly cmd?: string | undefined }): ArrivedMessage | undefined {
  if (packet.cmd !== "publish") return undefined;
  const { topic, payload } = packet as IPublishPacket; // by its command
  return { topic, payload: typeof payload === "string" ? Buffer.from(payload) : payload };
}

async function withDeadline(work: Promise<unknown>, deadlineMs: number): Promise<void> {
  const deadline = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => deadline.reject(new Error(`the broker did not answer within ${deadlineMs} ms`)),
    deadlineMs,
  );
  await Promise.race([work, deadline.promise]).finally(() => clearTimeout(timer));
}

async function endClient(client: MqttClient): Promise<void> {
  await withDeadline(client.endAsync(false), 2_000).catch(() => client.endAsync(true));
}
