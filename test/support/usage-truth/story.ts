/** A stretch of time, ms since 1970 UTC; the end is exclusive. */
export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** Everything that truly happens on a small fleet in some weeks: nobody measures here, it is simply so. */
export interface Story extends Span {
  /** Time between two looks of an agent at its host; looks are at multiples of it since 1970. */
  readonly sampleMs: number;
  readonly hosts: readonly HostStory[];
  readonly tenants: readonly TenantStory[];
  readonly pods: readonly PodStory[];
  readonly priceLists: readonly PriceVersion[];
  readonly plans: readonly PlanStory[];
}

/** A host, its boots, and what goes wrong on it. */
export interface HostStory {
  readonly nodeId: string;
  readonly boots: readonly Boot[];
  /** The agent looks at `fromMs` for the last time and at `toMs` again; it does not run in between. */
  readonly absences: readonly Span[];
  /** Without network. */
  readonly offline: readonly Span[];
  /** Steps of the wall clock; each holds until the next one. */
  readonly wallSteps: readonly { readonly atMs: number; readonly offMs: number }[];
  readonly spoolLimitBytes: number;
}

/** A boot of a host: its monotonic clock is zero at `zeroMs`. */
export interface Boot {
  readonly bootId: string;
  readonly zeroMs: number;
  /** When the agent looks for the first time. */
  readonly firstLookMs: number;
  /** When it first learns the time from the control plane. */
  readonly contactMs: number;
}

export interface TenantStory {
  readonly tenantId: string;
  readonly currency: string;
  /** The price list that it names; undefined: the default one of its currency. */
  readonly pricingName: string | undefined;
}

/** A pod and its life. */
export interface PodStory {
  readonly podId: string;
  readonly vmid: number;
  /** Index among the tenants. */
  readonly tenant: number;
  readonly guest: Guest;
  readonly runs: readonly Run[];
  readonly stays: readonly (Span & { readonly host: number })[];
  readonly allocations: readonly Allocation[];
}

/** How a guest uses what it has; see kernel.ts. */
export interface Guest {
  readonly patterns: Readonly<Record<CounterName, Pattern>>;
  readonly memoryBytes: bigint;
  readonly diskBytes: bigint;
}

export type CounterName = "cpu" | "in" | "out" | "read" | "write";

/** Consumption that repeats itself: so much in each minute of the period, and steadily so much a second. */
export interface Pattern {
  /** What was used in the period before each of its minutes. */
  readonly before: readonly bigint[];
  readonly perPeriod: bigint;
  readonly perSecond: bigint;
}

/** One run of the container, from the start of its first process to its end. */
export interface Run extends Span {
  readonly host: number;
  /** It was under way long before the story, with counters that had come far. */
  readonly base: Readonly<Record<CounterName, bigint>> | undefined;
  readonly resets: readonly Reset[];
}

/** Counters begin at zero again: of a new network interface, of the same one, or of the disk. */
export interface Reset {
  readonly atMs: number;
  readonly what: "interface" | "network" | "disk";
}

/** What a pod is for a time. */
export interface Allocation extends Span {
  readonly planCode: string | undefined;
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/** A version of a price list; amounts are decimal strings, in the units of the price list. */
export interface PriceVersion extends Span {
  readonly name: string;
  readonly currency: string;
  readonly isDefault: boolean;
  readonly cpuPerHour: string;
  readonly memoryGbPerHour: string;
  readonly diskGbPerMonth: string;
  readonly networkInGb: string;
  readonly networkInFree: boolean;
  readonly networkOutGb: string;
}

export interface PlanStory {
  readonly code: string;
  readonly bandwidthGb: number | undefined;
  readonly overage: "throttle" | "charge" | "none";
  /** Amounts per month as decimal strings. */
  readonly prices: readonly (Span & { readonly currency: string; readonly amount: string })[];
}

/** The one of some spans in which an instant lies. */
export function at<T extends Span>(spans: readonly T[], atMs: number): T | undefined {
  return spans.find((span) => span.fromMs <= atMs && atMs < span.toMs);
}

/** Whether the agent of a host works at an instant; at both ends of an absence it does. */
export function isAgentAt(host: HostStory, atMs: number): boolean {
  if (host.absences.some((absence) => absence.fromMs < atMs && atMs < absence.toMs)) return false;
  const boot = host.boots.findLast((one) => one.zeroMs <= atMs);
  return boot !== undefined && atMs >= boot.firstLookMs;
}

/** How much the host's wall clock is off, ms. */
export function wallOffMs(host: HostStory, atMs: number): number {
  return host.wallSteps.findLast((step) => step.atMs <= atMs)?.offMs ?? 0;
}

/** The size that a container has on its host, which is what its pod is or was last. */
export function sizeAt(pod: PodStory, atMs: number): Allocation | undefined {
  return pod.allocations.findLast((allocation) => allocation.fromMs <= atMs) ?? pod.allocations[0];
}
