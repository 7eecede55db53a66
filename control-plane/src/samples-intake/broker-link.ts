import { connect as connectTls } from "node:tls";
import mqtt, { type IPublishPacket, type MqttClient } from "mqtt";
import { nodeTopics } from "@cloudpods/shared/topics";
import type { Logger } from "pino";
import { holdIngestLock, type IngestLock } from "./ingest-lock.ts";

/** A client certificate of the replica (CN `control-plane:<replica>`), and whom it trusts; all PEM. */
export interface IngestTls {
  readonly cert: string;
  readonly key: string;
  readonly ca: readonly string[];
}

/** `shared`: the broker splits the messages among replicas; `plain`: this replica gets all of them; `standby`: another one does. */
export type SubscriptionMode = "connecting" | "shared" | "plain" | "standby";

/** A message from the broker. */
export interface ArrivedMessage {
  readonly topic: string;
  readonly payload: Buffer;
}

/** What the link to the broker needs. */
export interface BrokerLinkOptions {
  readonly mqttUrl: string;
  readonly tls: () => IngestTls;
  readonly replicaId: string;
  readonly databaseUrl: string;
  readonly log: Logger;
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
const probeDeadlineMs = 2_000;
const publishDeadlineMs = 10_000;
const channels = ["samples", "heartbeat", "status"] as const;
const plainTopics = channels.map((channel) => nodeTopics("+")[channel]);
// A shared subscription gets no retained messages, so everybody reads the few of presence.
const sharedTopics = [`$share/ingest/${nodeTopics("+").samples}`, `$share/ingest/${nodeTopics("+").heartbeat}`, nodeTopics("+").status];

/**
 * Connects and subscribes. Some brokers grant shared subscriptions and never deliver, so they are tried
 * with a message to ourselves; where they do not work only the holder of the lock `ingest` subscribes.
 */
export function openBrokerLink(options: BrokerLinkOptions): BrokerLink {
  const { log } = options;
  const probeTopic = `cloudpods/v1/control-plane/${options.replicaId}/probe`;
  let mode: SubscriptionMode = "connecting";
  let lock: IngestLock | undefined;
  let holdsLock = false;
  let probeAnswered: (() => void) | undefined;
  let arranging: Promise<void> = Promise.resolve();
  let wanted = true;

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
  // Called for each message in turn; calling back confirms it to the broker and lets the next one in.
  client.handleMessage = (packet, done) => {
    const message = asMessage(packet);
    if (message === undefined) return done();
    if (message.topic === probeTopic) {
      probeAnswered?.();
      return done();
    }
    const taken = options.arrived(message);
    if (taken === undefined) done();
    else taken.then(() => done(), done);
  };
  client.on("error", (error) => log.warn({ err: error }, "broker connection failed"));
  client.on("close", () => {
    mode = "connecting";
  });
  client.on("connect", () => arrange(subscribe));

  /** One change of subscriptions at a time; one that fails starts over with a new connection. */
  function arrange(change: () => Promise<void>): void {
    arranging = arranging.then(change).catch((error: unknown) => {
      log.warn({ err: error }, "broker subscription failed");
      if (client.connected) client.reconnect();
    });
  }

  async function subscribe(): Promise<void> {
    if (!client.connected || !wanted) return;
    if (await sharesSubscriptions()) {
      await lock?.release();
      lock = undefined;
      await client.subscribeAsync(sharedTopics, { qos: 1 });
      mode = "shared";
    } else {
      mode = "standby";
      lock ??= holdIngestLock(options.databaseUrl, lockHolder, log);
      if (holdsLock) await subscribePlainly();
    }
    log.info({ mode }, "ingest is connected to the broker");
  }

  async function subscribePlainly(): Promise<void> {
    if (!client.connected || !holdsLock || mode !== "standby") return;
    await client.subscribeAsync(plainTopics, { qos: 1 });
    mode = "plain";
  }

  const lockHolder = {
    acquired() {
      holdsLock = true;
      arrange(subscribePlainly);
    },
    lost() {
      holdsLock = false;
      arrange(async () => {
        if (!client.connected || mode !== "plain") return;
        mode = "standby";
        await client.unsubscribeAsync(plainTopics);
      });
    },
  };

  async function sharesSubscriptions(): Promise<boolean> {
    const filter = `$share/probe-${options.replicaId}/${probeTopic}`;
    try {
      await client.subscribeAsync(filter, { qos: 1 });
    } catch {
      return false; // refused, which answers the question
    }
    const answered = new Promise<boolean>((resolve) => {
      probeAnswered = () => resolve(true);
      setTimeout(() => resolve(false), probeDeadlineMs).unref();
    });
    await client.publishAsync(probeTopic, Buffer.from("probe"), { qos: 1 });
    const works = await answered;
    probeAnswered = undefined;
    await client.unsubscribeAsync(filter);
    return works;
  }

  return {
    mode: () => mode,
    async publish(topic, payload) {
      if (!client.connected) throw new Error("the broker is not connected");
      await withDeadline(client.publishAsync(topic, Buffer.from(payload), { qos: 1 }), publishDeadlineMs);
    },
    async unsubscribe() {
      wanted = false;
      await lock?.release();
      arrange(async () => {
        if (client.connected && mode === "shared") await client.unsubscribeAsync(sharedTopics);
        mode = "standby";
      });
      await withDeadline(arranging, publishDeadlineMs).catch(() => {});
    },
    close: () => endClient(client),
  };
}

function dial({ mqttUrl, tls }: BrokerLinkOptions) {
  const url = new URL(mqttUrl);
  const { cert, key, ca } = tls();
  return connectTls({ host: url.hostname, port: Number(url.port || 8883), cert, key, ca: [...ca], minVersion: "TLSv1.2" });
}

function asMessage(packet: { readonly cmd?: string | undefined }): ArrivedMessage | undefined {
  if (packet.cmd !== "publish") return undefined;
  const { topic, payload } = packet as IPublishPacket; // by its command
  return { topic, payload: typeof payload === "string" ? Buffer.from(payload) : payload };
}

async function withDeadline(work: Promise<unknown>, deadlineMs: number): Promise<void> {
  const deadline = Promise.withResolvers<never>();
  const timer = setTimeout(() => deadline.reject(new Error(`the broker did not confirm within ${deadlineMs} ms`)), deadlineMs);
  await Promise.race([work, deadline.promise]).finally(() => clearTimeout(timer));
}

async function endClient(client: MqttClient): Promise<void> {
  await withDeadline(client.endAsync(false), 2_000).catch(() => client.endAsync(true));
}
