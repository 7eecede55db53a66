/** What a pod used in one interval, as its host measured it: integrals, not rates. */
export interface MeasuredInterval {
  readonly startMs: number;
  readonly endMs: number;
  readonly cpuUsageUs: bigint;
  readonly memoryByteMs: bigint;
  readonly diskByteMs: bigint;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/** A pod's use of its resources in the last minutes; percentages are of what the pod has. */
export type RealtimeUsage =
  | { readonly status: "no_data" }
  | {
      readonly status: "live";
      readonly lastUpdate: Date;
      readonly current: {
        readonly cpuPercent: number;
        readonly memoryUsedMb: number;
        readonly memoryTotalMb: number;
        readonly memoryPercent: number | null;
        readonly diskUsedGb: number;
        readonly diskTotalGb: number;
        readonly diskPercent: number | null;
      };
      readonly averages: { readonly cpuPercent5min: number };
    };

const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;

/**
 * The newest interval's averages, and the processor use over all of them. Longer intervals weigh more;
 * the totals are those of the container's configuration in that interval. No total, no percentage.
 */
export function realtimeUsage(intervals: readonly MeasuredInterval[]): RealtimeUsage {
  const latest = intervals.reduce<MeasuredInterval | undefined>(
    (newest, one) => (newest === undefined || one.endMs > newest.endMs ? one : newest),
    undefined,
  );
  if (latest === undefined) return { status: "no_data" };
  const durationMs = latest.endMs - latest.startMs;
  const memoryUsedMb = Number(latest.memoryByteMs) / durationMs / mebibyte;
  const diskUsedGb = Number(latest.diskByteMs) / durationMs / gibibyte;
  return {
    status: "live",
    lastUpdate: new Date(latest.endMs),
    current: {
      cpuPercent: round(cpuPercent([latest]), 1),
      memoryUsedMb: round(memoryUsedMb, 1),
      memoryTotalMb: latest.memoryMb,
      memoryPercent: latest.memoryMb === 0 ? null : round((100 * memoryUsedMb) / latest.memoryMb, 1),
      diskUsedGb: round(diskUsedGb, 2),
      diskTotalGb: latest.diskGb,
      diskPercent: latest.diskGb === 0 ? null : round((100 * diskUsedGb) / latest.diskGb, 1),
    },
    averages: { cpuPercent5min: round(cpuPercent(intervals), 1) },
  };
}

/** Processor time used, in percent of the processor time that there was on the pod's cores. */
function cpuPercent(intervals: readonly MeasuredInterval[]): number {
  const usedUs = intervals.reduce((sum, { cpuUsageUs }) => sum + Number(cpuUsageUs), 0);
  // A container without a limit of cores is measured against one.
  const thereWasUs = intervals.reduce(
    (sum, { startMs, endMs, cores }) => sum + (endMs - startMs) * 1_000 * Math.max(1, cores),
    0,
  );
  return (100 * usedUs) / thereWasUs;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
