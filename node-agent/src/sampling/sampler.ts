import { messageOf } from "../agent-error.ts";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import { CLUSTER_GROUP } from "../pool-guard.ts";
import type { SampledTick } from "../spool/sampled-tick.ts";
import type { Spool } from "../spool/spool.ts";
import type { FilesystemProbe } from "./filesystem-probe.ts";
import { type Look, lookAt } from "./look-at-containers.ts";
import { type MeteredContainer, type MeteredContainers, createMeteredContainers } from "./metered-containers.ts";
import { type ContainerReader, type RootUsage, createContainerReader } from "./read-container.ts";
import { type RootUsages, createRootUsages } from "./root-usages.ts";
import { type SamplerMemory, decodeMemory, encodeMemory } from "./sampler-memory.ts";

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
  /** Takes a tick and goes on ticking. */
  start(): void;
  /** Ends ticking; resolves when a running tick is over. Nothing is lost: the next process continues. */
  stop(): Promise<void>;
  /** Changes the interval (Welcome.sample_interval_ms) from now on. */
  setIntervalMs(intervalMs: number): void;
  /** Takes a tick now. Never rejects: what a failed tick missed is in the next one. */
  tick(): Promise<void>;
  /**
   * Reads one container's last interval, just before it is stopped, destroyed or given a new network
   * interface. Never rejects and takes some two seconds at most; without effect when it does not run.
   */
  sampleFinal(vmid: number): Promise<void>;
  /** Containers of ours that ran at the last tick. */
  runningContainers(): number;
}

/** Shortest value of `longestBridgeMs`: the restart of an agent takes a minute or two. */
const MIN_BRIDGE_MS = 150_000;
/** Longest wait for the cluster file system; what it said last holds on. */
const CONFIG_DEADLINE_MS = 1000;

/** Makes the sampler; it continues where the process before it ended. */
export function createSampler(options: SamplerOptions): Sampler {
  return new AlignedSampler(options);
}

class AlignedSampler implements Sampler {
  readonly #options: SamplerOptions;
  readonly #metered: MeteredContainers;
  readonly #reader: ContainerReader;
  readonly #roots: RootUsages;
  #memory: SamplerMemory;
  #containers: ReadonlyMap<number, MeteredContainer> | undefined;
  #intervalMs: number;
  #running = 0;
  #unreadable: ReadonlyMap<number, string> = new Map();
  #timer: NodeJS.Timeout | undefined;
  #isStarted = false;
  #current: Promise<void> | undefined;

  constructor(options: SamplerOptions) {
    const { clock, paths, probe, spool } = options;
    this.#options = options;
    this.#metered = createMeteredContainers(paths);
    this.#reader = createContainerReader(paths);
    this.#roots = createRootUsages(paths.procRoot, probe);
    this.#memory = decodeMemory(spool.samplerState(), clock.bootId);
    this.#intervalMs = options.intervalMs;
  }

  start(): void {
    this.#isStarted = true;
    void this.#tickAndSchedule();
  }

  async stop(): Promise<void> {
    this.#isStarted = false;
    clearTimeout(this.#timer);
    await this.#current;
    this.#reader.close();
  }

  setIntervalMs(intervalMs: number): void {
    if (intervalMs === this.#intervalMs || intervalMs <= 0) return;
    this.#intervalMs = intervalMs;
    if (this.#current === undefined) this.#scheduleNext();
  }

  runningContainers(): number {
    return this.#running;
  }

  tick(): Promise<void> {
    const { log } = this.#options;
    this.#current ??= this.#takeTick()
      .catch((error: unknown) => log.error({ reason: messageOf(error) }, "a sampling tick failed"))
      .finally(() => {
        this.#current = undefined;
      });
    return this.#current;
  }

  async sampleFinal(vmid: number): Promise<void> {
    try {
      await this.#takeFinal(vmid);
    } catch (error) {
      this.#options.log.error({ vmid, reason: messageOf(error) }, "a final sample failed");
    }
  }

  async #tickAndSchedule(): Promise<void> {
    await this.tick();
    this.#scheduleNext();
  }

  #scheduleNext(): void {
    clearTimeout(this.#timer);
    if (!this.#isStarted) return;
    const waitMs = waitUntilNext(this.#options.clock.epochMs(), this.#intervalMs);
    this.#timer = setTimeout(() => void this.#tickAndSchedule(), waitMs);
  }

  async #refreshConfigs(): Promise<void> {
    const { paths, probe } = this.#options;
    // A cluster file system that hangs must not take the reading below with it.
    const answer = await probe.device(CLUSTER_GROUP, paths.pveRoot, CONFIG_DEADLINE_MS);
    if (answer.kind === "answered") this.#containers = this.#metered.refresh() ?? this.#containers;
  }

  async #takeTick(): Promise<void> {
    const { clock, log, paths } = this.#options;
    await this.#refreshConfigs();
    const containers = this.#containers;
    if (containers === undefined) {
      log.warn({ pveRoot: paths.pveRoot }, "no tick: which containers are ours is not known");
      return;
    }
    await this.#roots.refresh(this.#reader.running(containers.values()));
    // From here to the append nothing waits, so a final sample cannot come in between.
    const nowMs = clock.monotonicMs();
    const look = this.#look(containers.values(), nowMs, (vmid) => this.#roots.of(vmid));
    const coveredToMs = this.#memory.coveredToMs ?? nowMs;
    const coversFromMs = nowMs - coveredToMs > longestBridgeMs(this.#intervalMs) ? nowMs : coveredToMs;
    this.#store(
      { samples: look.samples, unreadableVmids: [...look.unreadable.keys()] },
      { from: coversFromMs, to: nowMs },
      { bootId: clock.bootId, lookedAtMs: nowMs, coveredToMs: nowMs, containers: look.containers },
    );
    this.#running = look.running;
    this.#tellUnreadable(look.unreadable);
    const ours = new Set(containers.keys());
    this.#reader.retain(ours);
    this.#roots.retain(ours);
  }

  async #takeFinal(vmid: number): Promise<void> {
    await this.#refreshConfigs();
    const container = this.#containers?.get(vmid);
    if (container === undefined) return;
    await this.#roots.refresh(this.#reader.running([container]));
    const nowMs = this.#options.clock.monotonicMs();
    // There is no later chance: an old figure of the disk is better than no figure of anything.
    const look = this.#look([container], nowMs, (each) => this.#roots.lastOf(each));
    if (look.samples.length === 0) return;
    // One container was looked at, so no time is covered and nothing is claimed about the others.
    const coveredToMs = this.#memory.coveredToMs ?? nowMs;
    const containers = new Map([...this.#memory.containers, ...look.containers]);
    this.#store(
      { samples: look.samples, unreadableVmids: [] },
      { from: coveredToMs, to: coveredToMs },
      { ...this.#memory, coveredToMs, containers },
    );
  }

  #look(containers: Iterable<MeteredContainer>, nowMs: number, rootOf: (vmid: number) => RootUsage | undefined): Look {
    const host = this.#reader.snapshot(nowMs);
    return lookAt(containers, { memory: this.#memory, host, reader: this.#reader, rootOf });
  }

  /** The sampler only remembers what the spool has: what could not be stored is in the next tick. */
  #store(
    seen: Pick<SampledTick, "samples" | "unreadableVmids">,
    covers: { readonly from: number; readonly to: number },
    next: SamplerMemory,
  ): void {
    this.#options.spool.append({
      ...seen,
      coversFromMonotonicMs: covers.from,
      coversToMonotonicMs: covers.to,
      samplerState: encodeMemory(next),
    });
    this.#memory = next;
    this.#options.onAppended?.();
  }

  #tellUnreadable(now: ReadonlyMap<number, string>): void {
    for (const [vmid, reason] of now) {
      if (this.#unreadable.get(vmid) === reason) continue;
      this.#options.log.warn({ vmid, reason }, "container is unreadable");
    }
    this.#unreadable = now;
  }
}

/**
 * A pause between two looks, in ms, up to which the time counts as covered: a container that is seen on
 * neither side did not run. After a longer one nothing is claimed about containers that were not
 * running when the agent came back. One tick that was late or left out must fit in.
 */
export function longestBridgeMs(intervalMs: number): number {
  return Math.max(MIN_BRIDGE_MS, 2.5 * intervalMs);
}

/**
 * Wait until the next multiple of the interval since 1970, in ms. One that is nearer than half an
 * interval is left out right after a tick that came early or late, so ticks never come in pairs.
 */
export function waitUntilNext(epochMs: number, intervalMs: number): number {
  const waitMs = intervalMs - (epochMs % intervalMs);
  return waitMs < Math.min(500, intervalMs / 2) ? waitMs + intervalMs : waitMs;
}
