import type { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";

/** What the sampler hands to the spool. Times are monotonic ms of the running boot. */
export interface SampledTick {
  /** `startMs` and `endMs` are monotonic here; the spool makes them absolute. */
  readonly samples: readonly Sample[];
  /** The time in which every container of ours was looked at; empty (from = to) when only some were. */
  readonly coversFromMonotonicMs: number;
  readonly coversToMonotonicMs: number;
  readonly unreadableVmids: readonly number[];
  /** The sampler's memory after this tick, stored in the same transaction. */
  readonly samplerState: Uint8Array;
}
