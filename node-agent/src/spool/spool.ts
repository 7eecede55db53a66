import type { SampleAcks } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import type { SampledTick } from "./sampled-tick.ts";

/** The durable queue between the sampler and the control plane. Every method is synchronous. */
export interface Spool {
  /** Identity of the numbering; changes only in `startSession`. */
  readonly spoolId: string;
  /** The next sequence number that it will give (Hello.spool_next_seq). */
  nextSeq(): bigint;
  /** Highest number up to which everything is acknowledged (Hello.spool_acked_seq). */
  ackedSeq(): bigint;
  /** Stores a tick; durable when it returns. */
  append(tick: SampledTick): void;
  /** What the sampler stored with its last tick. */
  samplerState(): Uint8Array | undefined;
  /**
   * Tells the control plane's watermark of this spool (Welcome.spool_contiguous_seq; -1 when it does
   * not know the spool). Nothing is offered before the first call. Offers again what a restored
   * database lost, and begins a new spool id when this file is older than what was delivered.
   */
  startSession(contiguousSeq: bigint): void;
  /** Batches to publish now; they count as offered from then on, even if the agent dies first. */
  takeOffers(): OfferedBatch[];
  /** Makes everything that is offered and unacknowledged due at once, after a reconnect. */
  retryNow(): void;
  /** Takes acknowledgements; those of another spool are ignored. */
  acknowledge(acks: SampleAcks): void;
  status(): SpoolStatus;
  close(): void;
}

/** One message for the samples topic. */
export interface OfferedBatch {
  readonly seqFrom: bigint;
  readonly seqTo: bigint;
  /** An encoded SampleBatch. */
  readonly payload: Uint8Array;
}

/** What the heartbeat tells about the spool. */
export interface SpoolStatus {
  readonly spoolId: string;
  /** Batches that are not acknowledged. */
  readonly depth: number;
  /** End of the oldest of them, ms since 1970; 0 when there is none. */
  readonly oldestEndMs: number;
  /** Bytes in use in the file. */
  readonly bytes: number;
  /** Over the limit although nothing more can be merged. */
  readonly isOverLimit: boolean;
}

/** Where and how large. */
export interface SpoolOptions {
  /** The SQLite file; its directory exists. */
  readonly path: string;
  /** Gives absolute times to batches; `openSpool` resumes the offset that the file remembers. */
  readonly clock: DisciplinedClock;
  /** Bytes from which on acknowledged batches are dropped early and old minutes are merged. */
  readonly limitBytes: number;
  readonly log: SpoolLog;
}

/** What the spool logs to; pino's Logger fits. */
export interface SpoolLog {
  warn(details: object, message: string): void;
}

/**
 * Opens the spool, making it if need be. A file that cannot be read is renamed to
 * `<path>.corrupt-<time>` and a new one is begun.
 */
export declare function openSpool(options: SpoolOptions): Spool;
