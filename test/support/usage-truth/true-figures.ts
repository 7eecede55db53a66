import { costOf, overageOf, type HourCost } from "./true-cost.ts";
import { hourMs, p95Of, usageOf, type HourUsage } from "./true-usage.ts";
import type { PodStory, Story } from "./story.ts";

/** Figures by name; amounts of money are of 10^-10. */
export type Figures = Record<string, bigint>;

/** What must be stored in the end: figures by `pod/hour`, `pod/day` and `pod/month`, the times as ISO texts. */
export interface TrueFigures {
  readonly hours: Map<string, Figures>;
  readonly days: Map<string, Figures>;
  readonly months: Map<string, Figures>;
}

const greatest = new Set(["cpu_max_basis_points", "memory_max_bytes", "disk_max_bytes"]);

/**
 * The figures of a whole story.
 * @param hasPercentile whether the 95th percentile of a pod's processor use can be told to the percent
 */
export function trueFigures(story: Story, hasPercentile: (pod: PodStory) => boolean): TrueFigures {
  const truth: TrueFigures = { hours: new Map(), days: new Map(), months: new Map() };
  for (const pod of story.pods) tellPod(story, pod, truth, hasPercentile(pod));
  return truth;
}

function tellPod(story: Story, pod: PodStory, truth: TrueFigures, hasPercentile: boolean): void {
  const usage = usageOf(story, pod);
  const costs: HourCost[] = [];
  for (let startMs = Math.floor(story.fromMs / hourMs) * hourMs; startMs < story.toMs; startMs += hourMs) {
    const used = usage.get(startMs);
    const cost = costOf(story, pod, startMs, used);
    costs.push(cost);
    if (used === undefined && cost.existedMs === 0) continue;
    const figures = figuresOf(used, cost);
    const time = new Date(startMs).toISOString();
    truth.hours.set(`${pod.podId}/${time.slice(0, 13)}`, figures);
    add(truth.days, `${pod.podId}/${time.slice(0, 10)}`, figures);
    add(truth.months, `${pod.podId}/${time.slice(0, 7)}`, figures);
  }
  if (hasPercentile) addPercentiles(truth, pod, [...usage.values()]);
  for (const [month, hours] of Map.groupBy(costs, (cost) => new Date(cost.hourMs).toISOString().slice(0, 7))) {
    const figures = truth.months.get(`${pod.podId}/${month}`);
    if (figures === undefined) continue;
    const overage = overageOf(story, pod, hours);
    figures["overage_bytes"] = overage.bytes;
    figures["cost_overage"] = overage.cost;
    figures["cost_total"] = (figures["cost_total"] ?? 0n) + overage.cost;
  }
}

function addPercentiles(truth: TrueFigures, pod: PodStory, hours: readonly HourUsage[]): void {
  for (const [day, own] of Map.groupBy(hours, (hour) => new Date(hour.hourMs).toISOString().slice(0, 10))) {
    const p95 = p95Of(own);
    const figures = truth.days.get(`${pod.podId}/${day}`);
    if (figures !== undefined && p95 !== undefined) figures["cpu_p95"] = p95;
  }
}

function add(level: Map<string, Figures>, key: string, figures: Figures): void {
  const sum = level.get(key) ?? {};
  for (const [name, value] of Object.entries(figures)) {
    const before = sum[name] ?? 0n;
    if (!greatest.has(name)) sum[name] = before + value;
    else sum[name] = value > before ? value : before;
  }
  level.set(key, sum);
}

function figuresOf(used: HourUsage | undefined, cost: HourCost): Figures {
  const parts = [cost.cpu, cost.memory, cost.disk, cost.networkIn, cost.networkOut, cost.plan];
  return {
    sample_count: used?.sampleCount ?? 0n,
    running_ms: used?.runningMs ?? 0n,
    uptime_ms: BigInt((used?.ran ?? []).reduce((sum, { fromMs, toMs }) => sum + toMs - fromMs, 0)),
    absent_ms: BigInt(cost.absentMs),
    cpu_usage_us: used?.used.cpu ?? 0n,
    cpu_capacity_ms: used?.capacityMs ?? 0n,
    cpu_max_basis_points: used?.cpuMaxBasisPoints ?? 0n,
    memory_byte_ms: used?.memoryByteMs ?? 0n,
    memory_max_bytes: used?.memoryMaxBytes ?? 0n,
    disk_byte_ms: used?.diskByteMs ?? 0n,
    disk_max_bytes: used?.diskMaxBytes ?? 0n,
    guest_in_bytes: used?.used.in ?? 0n,
    guest_out_bytes: used?.used.out ?? 0n,
    io_read_bytes: used?.used.read ?? 0n,
    io_write_bytes: used?.used.write ?? 0n,
    core_ms: cost.coreMs,
    memory_mb_ms: cost.memoryMbMs,
    disk_gb_ms: cost.diskGbMs,
    billable_in_bytes: cost.billableIn,
    billable_out_bytes: cost.billableOut,
    plan_out_bytes: cost.planOut,
    unpriced_ms: 0n,
    cost_cpu: cost.cpu,
    cost_memory: cost.memory,
    cost_disk: cost.disk,
    cost_network_in: cost.networkIn,
    cost_network_out: cost.networkOut,
    cost_plan: cost.plan,
    cost_total: parts.reduce((sum, part) => sum + part, 0n),
  };
}
