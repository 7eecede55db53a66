import type { Logger } from "pino";
import type { Registry } from "prom-client";
import type { Database } from "../platform/database.ts";

/** A client certificate of the replica (CN `control-plane:<replica>`), and whom it trusts; all PEM. */
export interface IngestTls {
  readonly cert: string;
  readonly key: string;
  readonly ca: readonly string[];
}

/** What ingest needs. */
export interface IngestOptions {
  /** The owner's login, for the queries around the samples. */
  readonly database: Database;
  /** The same login's connection string: COPY needs connections of its own, which do not pipeline. */
  readonly databaseUrl: string;
  /** `mqtts://host:port` of the broker. */
  readonly mqttUrl: string;
  /** Asked before each connection, so that a renewed certificate is used. */
  readonly tls: () => IngestTls;
  /** Id of this replica (UUID). */
  readonly replicaId: string;
  readonly log: Logger;
  readonly registry: Registry;
}

/** `shared`: the broker splits the messages among replicas; `plain`: this replica gets all of them; `standby`: another one does. */
export type SubscriptionMode = "connecting" | "shared" | "plain" | "standby";

/** Running ingest. */
export interface Ingest {
  readonly mode: () => SubscriptionMode;
  /** Stores what was received, at the latest within 10 s, and disconnects. */
  stop(): Promise<void>;
}
