import { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";

/** Everything read about a running container at one instant. Counters only ever rise in one run. */
export interface Reading {
  /** When, monotonic ms. */
  readonly atMs: number;
  /** Start of the container's first process in clock ticks since boot: names the run in its boot. */
  readonly initStartTicks: bigint;
  /** The same instant in monotonic ms, exact to some 20 ms. */
  readonly startedAtMs: number;
  readonly cpuUsageUs: bigint;
  /** In use without the page cache, as Proxmox counts it. */
  readonly memoryBytes: bigint;
  /** In use in the root file system. */
  readonly diskBytes: bigint;
  /** Of the device that the root file system lies on. */
  readonly ioReadBytes: bigint;
  readonly ioWriteBytes: bigint;
  readonly ioDevice: string;
  readonly interfaces: readonly InterfaceReading[];
}

/** One network interface, seen from the guest: what the host's end sends is what the guest gets. */
export interface InterfaceReading {
  readonly name: string;
  /** Changes when the interface is made anew; its counters then start at zero. */
  readonly ifindex: number;
  readonly guestInBytes: bigint;
  readonly guestOutBytes: bigint;
}

/** The configuration's limits: evidence of what the container was. */
export interface Allocation {
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/** Whose reading it is. */
export interface MeteredPod {
  readonly podId: string;
  readonly vmid: number;
  readonly allocation: Allocation;
}

/** What was known before a reading. */
export interface Before {
  /** The last reading that was accounted for; undefined when there is none in this boot. */
  readonly reading: Reading | undefined;
  /** The last instant at which the container was known not to run, or was read; monotonic ms. */
  readonly knownUntilMs: number;
}

/**
 * A run that was never read counts from its start if it started after the last look. A start is only
 * known to a clock tick, and a process exists shortly before its cgroup shows it; that nothing of the
 * run was counted yet makes a generous bound harmless.
 */
const START_TOLERANCE_MS = 2000;

/**
 * What a container used between two readings, as [start, end) in monotonic ms.
 *
 * - Same run: counters by difference, the interval begins where the last one ended.
 * - A new run after one that was read, or one that began after the last look: its counters started
 *   at zero, so they count whole and the interval begins with the run. What the old run did after
 *   its last reading is lost and is not made up.
 * - A run that was under way before anybody looked (a container just adopted) has no sample yet.
 * - Memory and disk are held: the value at the end stands for the whole interval. This needs no
 *   earlier value, so a first interval is as good as any other, and no figure is ever extrapolated.
 *
 * @returns the sample; "base" when the reading only is the base of the next sample; "early" when no
 * time has passed and what was known before must be kept
 */
export function sampleInterval(
  pod: MeteredPod,
  before: Before,
  current: Reading,
  bootId: string,
): Sample | "base" | "early" {
  const base = baseOf(before, current);
  if (base === undefined) return "base";
  if (current.atMs <= base.startMs) return "early";
  const lengthMs = BigInt(current.atMs - base.startMs);
  const traffic = trafficBetween(base.reading?.interfaces ?? [], current.interfaces);
  const isSameDevice = base.reading?.ioDevice === current.ioDevice;
  const cpuUsageUs = risen(base.reading?.cpuUsageUs, current.cpuUsageUs);
  return {
    podId: pod.podId,
    vmid: pod.vmid,
    startMs: BigInt(base.startMs),
    endMs: BigInt(current.atMs),
    runningMs: lengthMs,
    cpuUsageUs,
    cpuMaxBasisPoints: basisPoints(cpuUsageUs, lengthMs, pod.allocation.cores),
    memoryByteMs: current.memoryBytes * lengthMs,
    memoryMaxBytes: current.memoryBytes,
    diskByteMs: current.diskBytes * lengthMs,
    diskMaxBytes: current.diskBytes,
    guestInBytes: traffic.guestInBytes,
    guestOutBytes: traffic.guestOutBytes,
    ioReadBytes: risen(isSameDevice ? base.reading?.ioReadBytes : undefined, current.ioReadBytes),
    ioWriteBytes: risen(isSameDevice ? base.reading?.ioWriteBytes : undefined, current.ioWriteBytes),
    sampleCount: 1,
    ...pod.allocation,
    incarnation: incarnationOf(bootId, current),
  };
}

/** The longest interval that the control plane believes is a day; half of it leaves no doubt. */
const MAX_INTERVAL_MS = 12n * 3_600_000n;

/**
 * A sample as pieces that are not too long, after an agent that was off for days while the container
 * ran. Levels are held in each piece; counters stay whole in the last one, since nobody knows when
 * they rose and a guess would be a bill.
 */
export function cutLongInterval(sample: Sample): Sample[] {
  if (sample.endMs - sample.startMs <= MAX_INTERVAL_MS) return [sample];
  const pieces: Sample[] = [];
  let { startMs } = sample;
  while (sample.endMs - startMs > MAX_INTERVAL_MS) {
    const endMs = startMs + MAX_INTERVAL_MS;
    const { podId, vmid, cores, memoryMb, diskGb, incarnation, sampleCount } = sample;
    const identity = { podId, vmid, cores, memoryMb, diskGb, incarnation, sampleCount };
    pieces.push(Sample.fromPartial({ ...identity, ...heldLevels(sample, startMs, endMs) }));
    startMs = endMs;
  }
  pieces.push({ ...sample, ...heldLevels(sample, startMs, sample.endMs) });
  return pieces;
}

function heldLevels({ memoryMaxBytes, diskMaxBytes }: Sample, startMs: bigint, endMs: bigint): Partial<Sample> {
  const lengthMs = endMs - startMs;
  return {
    startMs,
    endMs,
    runningMs: lengthMs,
    memoryMaxBytes,
    memoryByteMs: memoryMaxBytes * lengthMs,
    diskMaxBytes,
    diskByteMs: diskMaxBytes * lengthMs,
  };
}

/** Names a run: boot, start of its first process, and the interfaces that it counts on. */
export function incarnationOf(bootId: string, reading: Reading): string {
  const interfaces = reading.interfaces.map(({ ifindex }) => ifindex).join("+");
  return `${bootId.slice(0, 8)}-${reading.initStartTicks}-${interfaces}`;
}

interface Base {
  readonly startMs: number;
  /** Undefined: counters started at zero. */
  readonly reading: Reading | undefined;
}

function baseOf(before: Before, current: Reading): Base | undefined {
  const { reading, knownUntilMs } = before;
  if (reading?.initStartTicks === current.initStartTicks) return { startMs: reading.atMs, reading };
  const isFresh = reading !== undefined || current.startedAtMs >= knownUntilMs - START_TOLERANCE_MS;
  if (!isFresh) return undefined;
  // Two runs of one container cannot overlap, however coarse the clock of their starts.
  return { startMs: Math.max(current.startedAtMs, reading?.atMs ?? 0), reading: undefined };
}

function trafficBetween(
  before: readonly InterfaceReading[],
  now: readonly InterfaceReading[],
): { guestInBytes: bigint; guestOutBytes: bigint } {
  let guestInBytes = 0n;
  let guestOutBytes = 0n;
  for (const current of now) {
    const last = before.find(({ name, ifindex }) => name === current.name && ifindex === current.ifindex);
    guestInBytes += risen(last?.guestInBytes, current.guestInBytes);
    guestOutBytes += risen(last?.guestOutBytes, current.guestOutBytes);
  }
  return { guestInBytes, guestOutBytes };
}

/** The rise of a counter; one that fell was reset and counts from zero. */
function risen(before: bigint | undefined, now: bigint): bigint {
  return before === undefined || now < before ? now : now - before;
}

/** Processor use in 1/100 % of the allocated cores, as far as a signed 32-bit column holds it. */
function basisPoints(cpuUsageUs: bigint, lengthMs: bigint, cores: number): number {
  const points = (cpuUsageUs * 10n) / (lengthMs * BigInt(Math.max(1, cores)));
  return points > 0x7fff_ffffn ? 0x7fff_ffff : Number(points);
}
