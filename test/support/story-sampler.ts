import type { DisciplinedClock } from "../../node-agent/src/clock/disciplined-clock.ts";
import { type Look, lookAt } from "../../node-agent/src/sampling/look-at-containers.ts";
import type { KernelReading } from "../../node-agent/src/sampling/read-container.ts";
import { longestBridgeMs } from "../../node-agent/src/sampling/sampler.ts";
import type { MeteredPod, Reading } from "../../node-agent/src/sampling/sample-interval.ts";
import { type SamplerMemory, decodeMemory, encodeMemory } from "../../node-agent/src/sampling/sampler-memory.ts";
import type { Spool } from "../../node-agent/src/spool/spool.ts";
import { shownAt } from "./usage-truth/kernel.ts";
import {
  at,
  isAgentAt,
  sizeAt,
  type Boot,
  type HostStory,
  type PodStory,
  type Run,
  type Story,
} from "./usage-truth/story.ts";

/** The sampler of an agent on a host of a story: the real one from the reading on, on a kernel that is told. */
export interface StorySampler {
  /** The next instant at which it looks at something, after another one. */
  nextLookMs(afterMs: number): number;
  /** Looks at what is to be looked at now, and stores it; without effect when that was done before. */
  look(nowMs: number): void;
}

export interface StorySamplerOptions {
  readonly story: Story;
  readonly host: number;
  readonly boot: Boot;
  /** Its monotonic time is that of the boot. */
  readonly clock: DisciplinedClock;
  readonly spool: Pick<Spool, "append" | "samplerState">;
  /** What the kernel shows; another one than the true one only to show that it would be noticed. */
  readonly show?: typeof shownAt;
}

/** Makes the sampler; it continues where the process before it ended. */
export function createStorySampler({
  story,
  host,
  boot,
  clock,
  spool,
  show = shownAt,
}: StorySamplerOptions): StorySampler {
  const own = story.hosts[host];
  if (own === undefined) throw new Error(`there is no host ${host}`);
  const local = story.pods.filter((pod) => pod.stays.some((stay) => stay.host === host));
  const finals = finalLooks(story, host, local);
  let memory: SamplerMemory = decodeMemory(spool.samplerState(), clock.bootId);

  function store(look: Look, covers: { readonly from: number; readonly to: number }, next: SamplerMemory): void {
    spool.append({
      samples: look.samples,
      unreadableVmids: [...look.unreadable.keys()],
      coversFromMonotonicMs: covers.from,
      coversToMonotonicMs: covers.to,
      samplerState: encodeMemory(next),
    });
    memory = next;
  }
  function see(pods: readonly PodStory[], nowMs: number): Look {
    const atMs = clock.monotonicMs();
    const byVmid = new Map(pods.map((pod) => [pod.vmid, pod]));
    return lookAt(
      pods.map((pod) => meteredAt(pod, nowMs)),
      {
        memory,
        host: { atMs, uptimeMs: atMs, cgroups: new Set(), interfaces: new Map() },
        reader: { read: (vmid) => readingOf(byVmid.get(vmid), { host, boot, nowMs, atMs, show }) },
        rootOf: () => ({ usedBytes: 0n, device: "8:0" }),
      },
    );
  }
  function lookAtAll(nowMs: number): void {
    const atMs = clock.monotonicMs();
    const here = local.filter((pod) => at(pod.stays, nowMs)?.host === host || runAt(pod, host, nowMs) !== undefined);
    const look = see(here, nowMs);
    const coveredToMs = memory.coveredToMs ?? atMs;
    const from = atMs - coveredToMs > longestBridgeMs(story.sampleMs) ? atMs : coveredToMs;
    const next = { bootId: clock.bootId, lookedAtMs: atMs, coveredToMs: atMs, containers: look.containers };
    store(look, { from, to: atMs }, next);
  }
  function lookAtOne(pod: PodStory, nowMs: number): void {
    const look = see([pod], nowMs);
    if (look.samples.length === 0) return;
    const coveredToMs = memory.coveredToMs ?? clock.monotonicMs();
    const containers = new Map([...memory.containers, ...look.containers]);
    store(look, { from: coveredToMs, to: coveredToMs }, { ...memory, coveredToMs, containers });
  }
  return {
    nextLookMs(afterMs) {
      let regularMs = (Math.floor(afterMs / story.sampleMs) + 1) * story.sampleMs;
      while (!isAgentAt(own, regularMs) && regularMs < story.toMs) regularMs += story.sampleMs;
      const final = finals.find((one) => one.atMs > afterMs);
      return Math.min(regularMs, final?.atMs ?? Number.POSITIVE_INFINITY);
    },
    look(nowMs) {
      // A look that is in the spool was not acknowledged before the process ended.
      if (memory.lookedAtMs !== undefined && clock.monotonicMs() <= memory.lookedAtMs) return;
      for (const final of finals) if (final.atMs === nowMs) lookAtOne(final.pod, nowMs);
      if (nowMs % story.sampleMs === 0) lookAtAll(nowMs);
    },
  };
}

/** Moments right before a container of the host is stopped, moved or given a new interface. */
function finalLooks(story: Story, host: number, pods: readonly PodStory[]) {
  const moments = pods.flatMap((pod) =>
    pod.runs
      .filter((run) => run.host === host)
      .flatMap((run) => [...run.resets.map(({ atMs }) => atMs), ...(run.toMs < story.toMs ? [run.toMs] : [])])
      .map((atMs) => ({ pod, atMs })),
  );
  // The last look before a boot is one at everything.
  return moments.filter(({ atMs }) => atMs % story.sampleMs !== 0).toSorted((one, other) => one.atMs - other.atMs);
}

function runAt(pod: PodStory, host: number, nowMs: number): Run | undefined {
  return pod.runs.find((run) => run.host === host && run.fromMs <= nowMs && nowMs <= run.toMs);
}

function meteredAt(pod: PodStory, nowMs: number): MeteredPod {
  const { cores = 1, memoryMb = 512, diskGb = 1 } = sizeAt(pod, nowMs) ?? {};
  return { podId: pod.podId, vmid: pod.vmid, allocation: { cores, memoryMb, diskGb } };
}

interface Moment {
  readonly host: number;
  readonly boot: Boot;
  readonly nowMs: number;
  readonly atMs: number;
  readonly show: typeof shownAt;
}

function readingOf(pod: PodStory | undefined, { host, boot, nowMs, atMs, show }: Moment): KernelReading {
  const run = pod === undefined ? undefined : runAt(pod, host, nowMs);
  if (pod === undefined || run === undefined) return { kind: "stopped" };
  // A reset follows the look that is taken for it.
  const shown = show(pod.guest, { ...run, resets: run.resets.filter((reset) => reset.atMs < nowMs) }, nowMs);
  const startedAtMs = run.fromMs - boot.zeroMs;
  const { cpu, read, write } = shown.counters;
  const reading: Reading = {
    atMs,
    initStartTicks: BigInt(Math.floor(startedAtMs / 10)),
    startedAtMs,
    cpuUsageUs: cpu,
    memoryBytes: shown.memoryBytes,
    diskBytes: shown.diskBytes,
    ioReadBytes: read,
    ioWriteBytes: write,
    ioDevice: "8:0",
    interfaces: [
      {
        name: "eth0",
        ifindex: pod.vmid * 10 + shown.interfaceNo,
        guestInBytes: shown.counters.in,
        guestOutBytes: shown.counters.out,
      },
    ],
  };
  return { kind: "running", read: () => reading };
}

/** The boot of a host at an instant. */
export function bootAt(host: HostStory, nowMs: number): Boot {
  const boot = host.boots.findLast((one) => one.zeroMs <= nowMs);
  if (boot === undefined) throw new Error("a host that never booted");
  return boot;
}
