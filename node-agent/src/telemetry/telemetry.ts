import type { Heartbeat } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
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

/** Makes the publisher; it does nothing before `start`. */
export declare function createTelemetry(options: TelemetryOptions): Telemetry;
