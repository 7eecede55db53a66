import { shownAt } from "./kernel.ts";
import {
  isAgentAt,
  sizeAt,
  type CounterName,
  type HostStory,
  type PodStory,
  type Run,
  type Span,
  type Story,
} from "./story.ts";

export const hourMs = 3_600_000;

/** What a pod used in an hour (UTC), as far as anybody can know who looks at it in the story's moments. */
export interface HourUsage {
  readonly hourMs: number;
  sampleCount: bigint;
  runningMs: bigint;
  readonly used: Record<CounterName, bigint>;
  /** Time of all cores, ms. */
  capacityMs: bigint;
  memoryByteMs: bigint;
  diskByteMs: bigint;
  cpuMaxBasisPoints: bigint;
  memoryMaxBytes: bigint;
  diskMaxBytes: bigint;
  /** When it ran within the hour. */
  readonly ran: Span[];
  /** Traffic at the end of each interval. */
  readonly traffic: { readonly atMs: number; readonly in: bigint; readonly out: bigint }[];
  /** Processor share in whole percent of all cores, and for how long. */
  readonly shares: { readonly percent: bigint; readonly ms: number }[];
}

/** One interval between two looks at a pod. */
interface Interval extends Span {
  readonly used: Record<CounterName, bigint>;
  readonly memoryBytes: bigint;
  readonly diskBytes: bigint;
  readonly cores: number;
}

/**
 * Usage by hour. Quantities of an interval belong whole to the hour of its last ms, its time is split at the
 * hour; levels are held from the end of an interval back to its start.
 */
export function usageOf(story: Story, pod: PodStory): Map<number, HourUsage> {
  const hours = new Map<number, HourUsage>();
  const hourOf = (atMs: number): HourUsage => {
    const start = Math.floor(atMs / hourMs) * hourMs;
    const known = hours.get(start) ?? emptyHour(start);
    hours.set(start, known);
    return known;
  };
  for (const run of pod.runs)
    for (const interval of intervalsOf(story, pod, run)) {
      count(hourOf(interval.toMs - 1), interval);
      const percent = lesser(
        100n,
        interval.used.cpu / (BigInt(interval.toMs - interval.fromMs) * BigInt(interval.cores) * 10n),
      );
      for (let fromMs = interval.fromMs; fromMs < interval.toMs;) {
        const hour = hourOf(fromMs);
        const toMs = Math.min(interval.toMs, hour.hourMs + hourMs);
        hour.ran.push({ fromMs, toMs });
        hour.shares.push({ percent, ms: toMs - fromMs });
        fromMs = toMs;
      }
    }
  return hours;
}

function count(hour: HourUsage, interval: Interval): void {
  const lengthMs = BigInt(interval.toMs - interval.fromMs);
  hour.sampleCount += 1n;
  hour.runningMs += lengthMs;
  for (const name of counterNames) hour.used[name] += interval.used[name];
  hour.capacityMs += lengthMs * BigInt(interval.cores);
  hour.memoryByteMs += interval.memoryBytes * lengthMs;
  hour.diskByteMs += interval.diskBytes * lengthMs;
  const basisPoints = (interval.used.cpu * 10n) / (lengthMs * BigInt(interval.cores));
  hour.cpuMaxBasisPoints = greater(hour.cpuMaxBasisPoints, basisPoints);
  hour.memoryMaxBytes = greater(hour.memoryMaxBytes, interval.memoryBytes);
  hour.diskMaxBytes = greater(hour.diskMaxBytes, interval.diskBytes);
  hour.traffic.push({ atMs: interval.toMs, in: interval.used.in, out: interval.used.out });
}

/** The moments at which the agent of a host looks at everything. */
const looksOfHosts = new WeakMap<HostStory, readonly number[]>();

function looksOf(story: Story, host: HostStory): readonly number[] {
  const known = looksOfHosts.get(host);
  if (known !== undefined) return known;
  const looks: number[] = [];
  for (let atMs = story.fromMs; atMs <= story.toMs; atMs += story.sampleMs) if (isAgentAt(host, atMs)) looks.push(atMs);
  looksOfHosts.set(host, looks);
  return looks;
}

/** The moments at which the agent looks at a run: each minute while it works, before a reset, and at the end. */
export function looksAt(story: Story, run: Run): number[] {
  const host = story.hosts[run.host];
  if (host === undefined) throw new Error(`there is no host ${run.host}`);
  const looks = looksOf(story, host).filter((atMs) => atMs >= run.fromMs && atMs <= run.toMs);
  const finals = [...run.resets.map((reset) => reset.atMs), ...(run.toMs < story.toMs ? [run.toMs] : [])];
  return [...new Set([...looks, ...finals])].toSorted((one, other) => one - other);
}

export const counterNames = ["cpu", "in", "out", "read", "write"] as const satisfies readonly CounterName[];

function intervalsOf(story: Story, pod: PodStory, run: Run): Interval[] {
  const looks = looksAt(story, run);
  // A run that was under way before anybody looked counts from the first look on.
  const starts = run.base === undefined ? run.fromMs : looks.shift();
  const intervals: Interval[] = [];
  let fromMs = starts ?? run.toMs;
  // The counters of a run that nobody looked at yet began at zero.
  let before = run.base === undefined ? undefined : shownAt(pod.guest, run, fromMs);
  for (const toMs of looks) {
    if (toMs <= fromMs) continue;
    // What is shown right before a reset.
    const isReset = run.resets.some((reset) => reset.atMs === toMs);
    const now = shownAt(
      pod.guest,
      isReset ? { ...run, resets: run.resets.filter((one) => one.atMs < toMs) } : run,
      toMs,
    );
    const used = Object.fromEntries(
      counterNames.map((name) => [name, now.counters[name] - (before?.counters[name] ?? 0n)]),
    ) as Record<CounterName, bigint>; // of all names
    const cores = sizeAt(pod, toMs)?.cores ?? 1;
    intervals.push({ fromMs, toMs, used, memoryBytes: now.memoryBytes, diskBytes: now.diskBytes, cores });
    fromMs = toMs;
    before = isReset ? shownAt(pod.guest, run, toMs) : now;
  }
  return intervals;
}

/** The lowest percentage at or below which the processor was for 95 % of the time; undefined without any time. */
export function p95Of(hours: readonly HourUsage[]): bigint | undefined {
  const shares = hours.flatMap((hour) => hour.shares).toSorted((one, other) => Number(one.percent - other.percent));
  const wholeMs = shares.reduce((sum, { ms }) => sum + ms, 0);
  let upToMs = 0;
  return shares.find(({ ms }) => (upToMs += ms) * 100 >= wholeMs * 95)?.percent;
}

function emptyHour(startMs: number): HourUsage {
  return {
    hourMs: startMs,
    sampleCount: 0n,
    runningMs: 0n,
    used: { cpu: 0n, in: 0n, out: 0n, read: 0n, write: 0n },
    capacityMs: 0n,
    memoryByteMs: 0n,
    diskByteMs: 0n,
    cpuMaxBasisPoints: 0n,
    memoryMaxBytes: 0n,
    diskMaxBytes: 0n,
    ran: [],
    traffic: [],
    shares: [],
  };
}

function lesser(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}

function greater(one: bigint, other: bigint): bigint {
  return one > other ? one : other;
}
