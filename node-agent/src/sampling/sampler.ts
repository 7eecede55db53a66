import { messageOf } from "../agent-error.ts";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import type { SampledTick } from "../spool/sampled-tick.ts";
import type { Spool } from "../spool/spool.ts";
import type { FilesystemProbe } from "./filesystem-probe.ts";
import { lookAt } from "./look-at-containers.ts";
import { type MeteredContainer, createMeteredContainers } from "./metered-containers.ts";
import { createContainerReader } from "./read-container.ts";
import { createRootUsages } from "./root-usages.ts";
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

/**
 * A pause between two looks up to which the time counts as covered: a container that is seen on
 * neither side did not run. After a longer one nothing is claimed about containers that were not
 * running when the agent came back.
 */
const MAX_BRIDGE_MS = 150_000;
/** Longest wait for the cluster file system; what it said last holds on. */
const CONFIG_DEADLINE_MS = 1000;

/** Makes the sampler; it continues where the process before it ended. */
export function createSampler(options: SamplerOptions): Sampler {
  const { clock, spool, probe, log, paths } = options;
  const metered = createMeteredContainers(paths);
  const reader = createContainerReader(paths);
  const roots = createRootUsages(paths.procRoot, probe);
  let memory = decodeMemory(spool.samplerState(), clock.bootId);
  let containers: ReadonlyMap<number, MeteredContainer> | undefined;
  let intervalMs = options.intervalMs;
  let running = 0;
  let unreadable: ReadonlyMap<number, string> = new Map();
  let timer: NodeJS.Timeout | undefined;
  let isStarted = false;
  let current: Promise<void> | undefined;

  async function refreshConfigs(): Promise<void> {
    const answer = await probe.measure("pve", paths.pveRoot, CONFIG_DEADLINE_MS);
    if (answer.kind === "measured") containers = metered.refresh() ?? containers;
  }

  async function takeTick(): Promise<void> {
    await refreshConfigs();
    if (containers === undefined) {
      log.warn({ pveRoot: paths.pveRoot }, "no tick: which containers are ours is not known");
      return;
    }
    await roots.refresh(reader.running(containers.values()));
    // From here to the append nothing waits, so a final sample cannot come in between.
    const nowMs = clock.monotonicMs();
    const look = lookAt(containers.values(), {
      memory,
      host: reader.snapshot(nowMs),
      reader,
      rootOf: roots.of,
    });
    const coveredToMs = memory.coveredToMs ?? nowMs;
    const coversFromMs = nowMs - coveredToMs > MAX_BRIDGE_MS ? nowMs : coveredToMs;
    store(
      { samples: look.samples, unreadableVmids: [...look.unreadable.keys()] },
      { from: coversFromMs, to: nowMs },
      { bootId: clock.bootId, lookedAtMs: nowMs, coveredToMs: nowMs, containers: look.containers },
    );
    running = look.running;
    tellUnreadable(look.unreadable);
    const ours = new Set(containers.keys());
    reader.retain(ours);
    roots.retain(ours);
  }

  async function takeFinal(vmid: number): Promise<void> {
    await refreshConfigs();
    const container = containers?.get(vmid);
    if (container === undefined) return;
    await roots.refresh(reader.running([container]));
    const nowMs = clock.monotonicMs();
    const look = lookAt([container], {
      memory,
      host: reader.snapshot(nowMs),
      reader,
      // There is no later chance: an old figure of the disk is better than no figure of anything.
      rootOf: roots.lastOf,
    });
    if (look.samples.length === 0) return;
    // One container was looked at, so no time is covered and nothing is claimed about the others.
    const coveredToMs = memory.coveredToMs ?? nowMs;
    const merged = new Map([...memory.containers, ...look.containers]);
    store(
      { samples: look.samples, unreadableVmids: [] },
      { from: coveredToMs, to: coveredToMs },
      { ...memory, coveredToMs, containers: merged },
    );
  }

  /** The sampler only remembers what the spool has: what could not be stored is in the next tick. */
  function store(
    seen: Pick<SampledTick, "samples" | "unreadableVmids">,
    covers: { readonly from: number; readonly to: number },
    next: SamplerMemory,
  ): void {
    spool.append({
      ...seen,
      coversFromMonotonicMs: covers.from,
      coversToMonotonicMs: covers.to,
      samplerState: encodeMemory(next),
    });
    memory = next;
    options.onAppended?.();
  }

  function tellUnreadable(now: ReadonlyMap<number, string>): void {
    for (const [vmid, reason] of now) {
      if (unreadable.get(vmid) !== reason) log.warn({ vmid, reason }, "container is unreadable");
    }
    unreadable = now;
  }

  function tick(): Promise<void> {
    current ??= takeTick()
      .catch((error: unknown) => log.error({ reason: messageOf(error) }, "a sampling tick failed"))
      .finally(() => {
        current = undefined;
      });
    return current;
  }

  function scheduleNext(): void {
    clearTimeout(timer);
    if (!isStarted) return;
    timer = setTimeout(() => {
      void tick().then(scheduleNext);
    }, waitUntilNext(clock.epochMs(), intervalMs));
  }

  return {
    start() {
      isStarted = true;
      void tick().then(scheduleNext);
    },
    async stop() {
      isStarted = false;
      clearTimeout(timer);
      await current;
    },
    setIntervalMs(next) {
      if (next === intervalMs || next <= 0) return;
      intervalMs = next;
      if (current === undefined) scheduleNext();
    },
    tick,
    async sampleFinal(vmid) {
      try {
        await takeFinal(vmid);
      } catch (error) {
        log.error({ vmid, reason: messageOf(error) }, "a final sample failed");
      }
    },
    runningContainers: () => running,
  };
}

/**
 * Wait until the next multiple of the interval since 1970, in ms. One that is nearer than half an
 * interval is left out right after a tick that came early or late, so ticks never come in pairs.
 */
export function waitUntilNext(epochMs: number, intervalMs: number): number {
  const waitMs = intervalMs - (epochMs % intervalMs);
  return waitMs < Math.min(500, intervalMs / 2) ? waitMs + intervalMs : waitMs;
}
