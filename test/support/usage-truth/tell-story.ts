import { randomOf, type Random } from "./random.ts";
import { tellPods } from "./tell-pods.ts";
import type { HostStory, PlanStory, PriceVersion, Span, Story, TenantStory } from "./story.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

/** How large a story is; the same options tell the same story in every process. */
export interface StoryOptions {
  readonly seed: number;
  /** Both ends are full hours. */
  readonly fromMs: number;
  readonly toMs: number;
  readonly hosts: number;
  readonly pods: number;
  readonly sampleMs: number;
  /** How long the first host is without network. */
  readonly offlineMs: number;
  /** Bytes of the first host's spool; the others have room for everything. */
  readonly smallSpoolBytes: number;
  /** Mean time between two events in a pod's life. */
  readonly eventMs: number;
  /** Mean time between two absences of an agent. */
  readonly absenceMs: number;
}

/** Tells a story. The first host goes offline with a small spool, the second one boots again with a wrong clock. */
export function tellStory(options: StoryOptions): Story {
  const random = randomOf(options.seed);
  const hosts = Array.from({ length: options.hosts }, (_, index) => tellHost(options, random, index));
  const tenants: TenantStory[] = [
    { tenantId: random.uuid(), currency: "USD", pricingName: undefined },
    { tenantId: random.uuid(), currency: "USD", pricingName: "loyal" },
    { tenantId: random.uuid(), currency: "EUR", pricingName: undefined },
  ];
  const frame = { fromMs: options.fromMs, toMs: options.toMs, sampleMs: options.sampleMs };
  const beginning = {
    ...frame,
    hosts,
    tenants,
    priceLists: tellPrices(options, random),
    plans: tellPlans(options, random),
  };
  return { ...beginning, pods: tellPods(options, random, beginning) };
}

function tellHost(options: StoryOptions, random: Random, index: number): HostStory {
  const { fromMs, toMs } = options;
  const lengthMs = toMs - fromMs;
  const offline: Span[] = [];
  if (index === 0) {
    const goesMs = Math.floor(fromMs + (lengthMs - options.offlineMs) * 0.45) + random.whole(1, 59_000);
    offline.push({ fromMs: goesMs, toMs: goesMs + options.offlineMs });
  }
  const boots = [
    {
      bootId: random.uuid(),
      zeroMs: fromMs - 40 * dayMs - random.whole(0, dayMs),
      firstLookMs: fromMs,
      contactMs: fromMs,
    },
  ];
  if (index === 1) {
    const endsMs = onLook(options, fromMs + lengthMs * 0.6);
    const zeroMs = endsMs + 41_234;
    boots.push({
      bootId: random.uuid(),
      zeroMs,
      firstLookMs: onLook(options, endsMs + 3 * minuteMs),
      contactMs: endsMs + 11 * minuteMs,
    });
  }
  const booted = boots.slice(1).map((boot) => ({ fromMs: boot.zeroMs - hourMs, toMs: boot.contactMs + hourMs }));
  return {
    nodeId: random.uuid(),
    boots,
    absences: tellAbsences(options, random, booted),
    offline,
    wallSteps: tellWallSteps(options, random, boots[1]?.zeroMs),
    spoolLimitBytes: index === 0 ? options.smallSpoolBytes : 1e9,
  };
}

/** Now and then the agent is away for some minutes or hours. */
function tellAbsences(options: StoryOptions, random: Random, busy: readonly Span[]): Span[] {
  const { fromMs, toMs } = options;
  const absences: Span[] = [];
  for (let atMs = fromMs + 2 * hourMs; ;) {
    atMs += hourMs + Math.floor(random.next() * 2 * options.absenceMs);
    const absence = { fromMs: onLook(options, atMs), toMs: onLook(options, atMs + random.whole(2, 140) * minuteMs) };
    if (absence.toMs > toMs - hourMs) return absences;
    if (!busy.some((span) => absence.fromMs < span.toMs && span.fromMs < absence.toMs)) absences.push(absence);
    atMs = absence.toMs;
  }
}

/** The wall clock is set ten minutes forth or back now and then; a boot begins with a clock that is wrong. */
function tellWallSteps(
  { fromMs, toMs }: StoryOptions,
  random: Random,
  bootMs: number | undefined,
): HostStory["wallSteps"] {
  const steps: { atMs: number; offMs: number }[] = [];
  for (let atMs = fromMs; atMs < toMs; atMs += random.whole(hourMs, 9 * hourMs))
    steps.push({ atMs, offMs: random.pick([-10, 0, 10]) * minuteMs });
  if (bootMs !== undefined) steps.push({ atMs: bootMs, offMs: -10 * minuteMs });
  return steps.toSorted((one, other) => one.atMs - other.atMs);
}

function tellPrices({ fromMs, toMs }: StoryOptions, random: Random): PriceVersion[] {
  const always = fromMs - 300 * dayMs;
  const never = toMs + 3_000 * dayMs;
  // Before any spool can be full: the traffic of merged samples cannot be told apart inside an hour, and samples are merged
  // whenever the small spool has to wait, also for a broker that was killed.
  const changesMs = fromMs + random.whole(1, hourMs);
  const version = (name: string, currency: string, span: Span, factor: number): PriceVersion => ({
    ...span,
    name,
    currency,
    isDefault: name === "standard",
    cpuPerHour: (0.0123 * factor).toFixed(10),
    memoryGbPerHour: (0.0054321 * factor).toFixed(10),
    diskGbPerMonth: (0.1037 * factor).toFixed(10),
    networkInGb: (0.0101 * factor).toFixed(10),
    networkInFree: currency === "USD",
    networkOutGb: (0.0503 * factor).toFixed(10),
  });
  return [
    version("standard", "USD", { fromMs: always, toMs: changesMs }, 1),
    version("standard", "USD", { fromMs: changesMs, toMs: never }, 1.07),
    version("loyal", "USD", { fromMs: always, toMs: changesMs + hourMs + 7_654 }, 0.9),
    version("standard", "EUR", { fromMs: always, toMs: never }, 0.97),
  ];
}

function tellPlans({ fromMs, toMs }: StoryOptions, random: Random): PlanStory[] {
  const always = fromMs - 300 * dayMs;
  const never = toMs + 3_000 * dayMs;
  const plan = (
    code: string,
    overage: PlanStory["overage"],
    bandwidthGb: number | undefined,
    price: number,
  ): PlanStory => {
    const changesMs = Math.floor(fromMs + (toMs - fromMs) * random.next());
    return {
      code,
      overage,
      bandwidthGb,
      prices: ["USD", "EUR"].flatMap((currency) => [
        { fromMs: always, toMs: changesMs, currency, amount: price.toFixed(10) },
        { fromMs: changesMs, toMs: never, currency, amount: (price * 1.1).toFixed(10) },
      ]),
    };
  };
  return [
    plan("TRUTH_CHARGED", "charge", 1, 4.99),
    plan("TRUTH_FREE", "none", undefined, 9.95),
    plan("TRUTH_SLOW", "throttle", 2, 3),
  ];
}

/** The first look at or after an instant. */
function onLook({ sampleMs }: StoryOptions, atMs: number): number {
  return Math.ceil(atMs / sampleMs) * sampleMs;
}
