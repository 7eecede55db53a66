import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import type { Spool } from "../spool/spool.ts";
import type { FilesystemProbe } from "./filesystem-probe.ts";

/** What the sampler needs. */
export interface SamplerOptions {
  readonly paths: Pick<HostPaths, "pveRoot" | "cgroupRoot" | "procRoot" | "netClassRoot">;
  readonly clock: DisciplinedClock;
  readonly spool: Pick<Spool, "append" | "samplerState">;
  readonly probe: FilesystemProbe;
  /** Time between two ticks; they are aligned to its multiples since 1970. */
  readonly intervalMs: number;
  readonly log: SamplerLog;
  /** Called after each tick that is in the spool. */
  readonly onAppended?: () => void;
}

/** What the sampler logs to; pino's Logger fits. */
export interface SamplerLog {
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

/** Reads what the host's containers use, once every interval. */
export interface Sampler {
  /** Begins to tick. */
  start(): void;
  /** Ends ticking; resolves when a running tick is over. Nothing is lost: the next process continues. */
  stop(): Promise<void>;
  /** Changes the interval (Welcome.sample_interval_ms); takes effect after the next tick. */
  setIntervalMs(intervalMs: number): void;
  /** Takes a tick now. Never rejects: a tick that fails is made up for by the next one. */
  tick(): Promise<void>;
  /**
   * Reads one container's last interval, just before it is stopped, destroyed or given a new network
   * interface. Never rejects and takes at most a second; without effect when it does not run.
   */
  sampleFinal(vmid: number): Promise<void>;
  /** Containers of ours that ran at the last tick. */
  runningContainers(): number;
}

/** Makes the sampler. */
export declare function createSampler(options: SamplerOptions): Sampler;
