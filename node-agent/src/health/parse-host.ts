/** Processor time of the whole host since boot, in clock ticks. */
export interface HostCpuTime {
  readonly busyTicks: bigint;
  readonly totalTicks: bigint;
}

/**
 * The first line of /proc/stat (proc(5)): user nice system idle iowait irq softirq steal guest
 * guest_nice. The last two are contained in user and nice already. Waiting for a disk is idle time.
 */
export function parseHostCpuTime(stat: string): HostCpuTime | undefined {
  const line = /^cpu +(\d+(?: \d+){7,9})$/mu.exec(stat)?.[1];
  if (line === undefined) return undefined;
  const ticks = line.split(" ").slice(0, 8).map(BigInt);
  const totalTicks = ticks.reduce((sum, part) => sum + part, 0n);
  const [idle = 0n, ioWait = 0n] = ticks.slice(3, 5);
  return { busyTicks: totalTicks - idle - ioWait, totalTicks };
}

/** Busy part between two readings in 1/100 of a percent of all cores; 0 when no time has passed. */
export function busyBasisPoints(before: HostCpuTime | undefined, now: HostCpuTime): number {
  const total = now.totalTicks - (before?.totalTicks ?? 0n);
  // The kernel may take a little of an idle counter back (proc(5)).
  const busy = now.busyTicks - (before?.busyTicks ?? 0n);
  if (total <= 0n || busy <= 0n) return 0;
  return Math.min(10_000, Number((busy * 10_000n) / total));
}

/** A row of /proc/meminfo in MiB; undefined when it is not there. */
export function parseMemoryMb(meminfo: string, key: string): number | undefined {
  const kib = new RegExp(`^${key}:\\s+(\\d+) kB$`, "mu").exec(meminfo)?.[1];
  return kib === undefined ? undefined : Math.floor(Number(kib) / 1024);
}

/** Load average of one minute × 100, out of /proc/loadavg. */
export function parseLoad1Centi(loadavg: string): number | undefined {
  const [, whole, fraction] = /^(\d+)\.(\d\d) /u.exec(loadavg) ?? [];
  return whole === undefined || fraction === undefined ? undefined : Number(whole) * 100 + Number(fraction);
}
