import type { MqttClient } from "mqtt";
import { nodeTopics } from "@cloudpods/shared/topics";
import type { Logger } from "pino";
import { holdReplicaLock, type ReplicaLock } from "../platform/replica-lock.ts";

/** `shared`: the broker splits the messages among replicas; `plain`: this replica gets all of them; `standby`: another one does. */
export type SubscriptionMode = "connecting" | "shared" | "plain" | "standby";

/** What subscribing needs. */
export interface SubscriptionOptions {
  readonly replicaId: string;
  readonly databaseUrl: string;
  readonly log: Logger;
}

const probeDeadlineMs = 2_000;
const channels = ["samples", "heartbeat", "status"] as const;
const plainTopics = channels.map((channel) => nodeTopics("+")[channel]);
// A shared subscription gets no retained messages, so everybody reads the few of presence.
const sharedTopics = [
  `$share/ingest/${nodeTopics("+").samples}`,
  `$share/ingest/${nodeTopics("+").heartbeat}`,
  nodeTopics("+").status,
];

/**
 * The subscriptions of one replica. Some brokers grant shared subscriptions and never deliver, so they
 * are tried with a message to ourselves; where they do not work only the holder of the lock `ingest`
 * subscribes, for as long as it has the broker.
 */
export class Subscriptions {
  readonly #client: MqttClient;
  readonly #options: SubscriptionOptions;
  readonly #probeTopic: string;
  #mode: SubscriptionMode = "connecting";
  #wanted = true;
  #lock: ReplicaLock | undefined;
  #holdsLock = false;
  #probeAnswered: (() => void) | undefined;
  #changes: Promise<void> = Promise.resolve();

  constructor(client: MqttClient, options: SubscriptionOptions) {
    this.#client = client;
    this.#options = options;
    this.#probeTopic = `cloudpods/v1/control-plane/${options.replicaId}/probe`;
  }

  get mode(): SubscriptionMode {
    return this.#mode;
  }

  /** To be called with each new connection. */
  connected(): void {
    this.#change(() => this.#subscribe());
  }

  /** To be called when a connection is gone: another replica may still have one, so it may have the lock. */
  disconnected(): void {
    this.#mode = "connecting";
    void this.#releaseLock();
  }

  /** Whether a message was our own question, which it answers. */
  takesProbe(topic: string): boolean {
    if (topic !== this.#probeTopic) return false;
    this.#probeAnswered?.();
    return true;
  }

  /** Leaves what comes from now on to other replicas. */
  async end(): Promise<void> {
    this.#wanted = false;
    await this.#releaseLock();
    this.#change(async () => {
      if (this.#client.connected && this.#mode === "shared") await this.#client.unsubscribeAsync(sharedTopics);
      this.#mode = "standby";
    });
    await this.#changes;
  }

  /** One change at a time; one that fails starts over with a new connection. */
  #change(change: () => Promise<void>): void {
    this.#changes = this.#changes.then(change).catch((error: unknown) => {
      this.#options.log.warn({ err: error }, "broker subscription failed");
      if (this.#client.connected && this.#wanted) this.#client.reconnect();
    });
  }

  async #subscribe(): Promise<void> {
    if (!this.#client.connected || !this.#wanted) return;
    if (await this.#areShared()) {
      await this.#client.subscribeAsync(sharedTopics, { qos: 1 });
      this.#mode = "shared";
    } else {
      this.#mode = "standby";
      this.#lock ??= this.#contend();
    }
    this.#options.log.info({ mode: this.#mode }, "ingest is connected to the broker");
  }

  #contend(): ReplicaLock {
    const holder = {
      acquired: () => {
        this.#holdsLock = true;
        this.#change(() => this.#subscribePlainly());
      },
      lost: () => {
        this.#holdsLock = false;
        this.#change(() => this.#unsubscribePlainly());
      },
    };
    return holdReplicaLock("ingest", this.#options.databaseUrl, holder, this.#options.log);
  }

  async #releaseLock(): Promise<void> {
    const lock = this.#lock;
    this.#lock = undefined;
    await lock?.release();
  }

  async #subscribePlainly(): Promise<void> {
    if (!this.#client.connected || !this.#holdsLock || this.#mode !== "standby") return;
    await this.#client.subscribeAsync(plainTopics, { qos: 1 });
    this.#mode = "plain";
    this.#options.log.info({ mode: this.#mode }, "ingest receives everything");
  }

  async #unsubscribePlainly(): Promise<void> {
    if (!this.#client.connected || this.#mode !== "plain") return;
    this.#mode = "standby";
    await this.#client.unsubscribeAsync(plainTopics);
  }

  async #areShared(): Promise<boolean> {
    const filter = `$share/probe-${this.#options.replicaId}/${this.#probeTopic}`;
    try {
      await this.#client.subscribeAsync(filter, { qos: 1 });
    } catch {
      return false; // refused, which answers the question
    }
    const answered = new Promise<boolean>((resolve) => {
      this.#probeAnswered = () => resolve(true);
      setTimeout(() => resolve(false), probeDeadlineMs).unref();
    });
    await this.#client.publishAsync(this.#probeTopic, Buffer.from("probe"), { qos: 1 });
    const works = await answered;
    this.#probeAnswered = undefined;
    await this.#client.unsubscribeAsync(filter);
    return works;
  }
}
