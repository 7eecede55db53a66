import { patternOf } from "./kernel.ts";
import type { Random } from "./random.ts";
import {
  isAgentAt,
  type Allocation,
  type CounterName,
  type Guest,
  type PodStory,
  type Reset,
  type Run,
  type Span,
  type Story,
} from "./story.ts";
import type { StoryOptions } from "./tell-story.ts";

const minuteMs = 60_000;
const dayMs = 86_400_000;
/** A prime number of minutes, so that no two hours look alike. */
const patternMinutes = 97;
const firstVmid = 100_000;
/** Batches that wait at most for a network that works. */
const waitingMax = 50;

type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };

/** A pod while its life is told. */
interface Life {
  readonly podId: string;
  readonly runs: Mutable<Run & { resets: Reset[] }>[];
  readonly stays: Mutable<PodStory["stays"][number]>[];
  readonly allocations: Mutable<Allocation>[];
  run: Mutable<Run & { resets: Reset[] }> | undefined;
  host: number;
}

type Beginning = Omit<Story, "pods">;

/** Tells the lives of all pods. What happens to one happens on hosts that can be reached then. */
export function tellPods(options: StoryOptions, random: Random, story: Beginning): PodStory[] {
  return Array.from({ length: options.pods }, (_, index) => {
    const life = tellLife(options, random, story, index);
    return {
      podId: life.podId,
      vmid: firstVmid + index,
      tenant: index % story.tenants.length,
      guest: tellGuest(random, index),
      runs: life.runs,
      stays: life.stays,
      allocations: life.allocations,
    };
  });
}

/** One guest in ten moves so much that its counters and sums pass 2^53 bytes. */
function tellGuest(random: Random, index: number): Guest {
  const factor = index % 10 === 3 ? 60_000_000_000 : 1_000 * 10 ** random.whole(0, 3);
  const pattern = (perSecond: number) =>
    patternOf(
      Array.from({ length: patternMinutes }, () => BigInt(Math.floor(random.next() * 60 * perSecond))),
      BigInt(Math.floor(perSecond / 3)),
    );
  const traffic = () => pattern((0.5 + random.next() / 2) * factor);
  const patterns: Record<CounterName, ReturnType<typeof pattern>> = {
    cpu: pattern(random.whole(1, 1_400_000)),
    in: traffic(),
    out: traffic(),
    read: pattern(random.next() * 500_000),
    write: pattern(random.next() * 700_000),
  };
  return {
    patterns,
    memoryBytes: BigInt(random.whole(20, 900)) * 1_048_576n,
    diskBytes: BigInt(random.whole(200, 9_000)) * 1_048_576n,
  };
}

function tellLife(options: StoryOptions, random: Random, story: Beginning, index: number): Life {
  const { fromMs, toMs } = options;
  const life: Life = {
    podId: random.uuid(),
    runs: [],
    stays: [],
    allocations: [],
    run: undefined,
    host: index % story.hosts.length,
  };
  const isOld = random.chance(0.8);
  const forever = toMs + 3_000 * dayMs;
  let atMs = fromMs;
  if (isOld) {
    life.stays.push({ host: life.host, fromMs: fromMs - 30 * dayMs, toMs: forever });
    life.allocations.push({ ...tellSize(random, story), fromMs, toMs });
    if (random.chance(0.85)) begin(life, fromMs - random.whole(2, 20 * 1_440) * minuteMs, toMs, oldCounters(random));
  } else {
    atMs = reachable(story, random, life.host, fromMs + random.next() * (toMs - fromMs) * 0.7);
    if (atMs >= toMs - 3_600_000) atMs = reachable(story, random, life.host, fromMs + 600_000);
    life.stays.push({ host: life.host, fromMs: atMs - 31_000, toMs: forever });
    begin(life, atMs, toMs, undefined);
    life.allocations.push({ ...tellSize(random, story), fromMs: atMs + 4_217, toMs });
  }
  for (;;) {
    const wishedMs = atMs + 5 * minuteMs + Math.floor(-Math.log(1 - random.next()) * options.eventMs);
    atMs = reachable(story, random, life.host, wishedMs);
    // Nothing begins that might not end before the story does.
    if (atMs > toMs - 30 * minuteMs) break;
    const isDeleted = happen(life, atMs, story, random, toMs);
    if (isDeleted) break;
    atMs = Math.max(atMs, life.run?.fromMs ?? 0);
  }
  endRunsWithBoots(life, story);
  return life;
}

/** Counters of a run that is old: not far below 2^53, which no double gets past unharmed. */
function oldCounters(random: Random): Record<CounterName, bigint> {
  const counter = (): bigint => 2n ** 53n - BigInt(random.whole(1, 4_000_000_000));
  return { cpu: counter(), in: counter(), out: counter(), read: counter(), write: counter() };
}

function begin(life: Life, fromMs: number, toMs: number, base: Run["base"]): void {
  life.run = { host: life.host, fromMs, toMs, base, resets: [] };
  life.runs.push(life.run);
}

function tellSize(random: Random, story: Beginning): Omit<Allocation, "fromMs" | "toMs"> {
  return {
    planCode: random.chance(0.4) ? random.pick(story.plans).code : undefined,
    cores: random.whole(1, 4),
    memoryMb: random.pick([512, 1_024, 2_048, 3_000]),
    diskGb: random.whole(5, 60),
  };
}

/** One thing that happens to a pod; true when that is its end. */
function happen(life: Life, atMs: number, story: Beginning, random: Random, toMs: number): boolean {
  const { run } = life;
  const what = random.pick([
    "restart",
    "restart",
    "stop",
    "resize",
    "resize",
    "move",
    "move",
    "reset",
    "reset",
    "delete",
  ] as const);
  if (what === "resize") {
    const last = life.allocations.at(-1);
    if (last === undefined) throw new Error("a pod is something");
    last.toMs = atMs;
    life.allocations.push({ ...tellSize(random, story), fromMs: atMs, toMs });
    return false;
  }
  if (what === "delete" && random.chance(0.3)) {
    const last = life.allocations.at(-1);
    if (last === undefined || last.fromMs >= atMs - 2_501) return false;
    last.toMs = atMs - 2_501;
    if (run !== undefined) run.toMs = atMs;
    const stay = life.stays.at(-1);
    if (stay !== undefined) stay.toMs = atMs + 15_000;
    life.run = undefined;
    return true;
  }
  if (run === undefined) {
    begin(life, atMs, toMs, undefined);
    return false;
  }
  if (what === "reset") {
    // A counter that begins anew under the same name is only seen as such when it had come far.
    const isFar = run.base !== undefined && run.resets.length === 0;
    run.resets.push({ atMs, what: isFar ? random.pick(["network", "disk"] as const) : "interface" });
    return false;
  }
  run.toMs = atMs;
  life.run = undefined;
  if (what === "move") move(life, atMs, story, random, toMs);
  else if (what === "restart") begin(life, atMs + random.whole(1_000, 19_000), toMs, undefined);
  return false;
}

/** Within a minute to a host that can be reached, if there is one. */
function move(life: Life, atMs: number, story: Beginning, random: Random, toMs: number): void {
  const others = story.hosts
    .map((_, host) => host)
    .filter((host) => host !== life.host && isReachable(story, host, atMs));
  if (others.length === 0) return;
  const stay = life.stays.at(-1);
  if (stay === undefined) throw new Error("a pod is somewhere");
  const forever = stay.toMs;
  stay.toMs = atMs + 10_000;
  life.host = random.pick(others);
  life.stays.push({ host: life.host, fromMs: atMs - 5_000, toMs: forever });
  begin(life, atMs + random.whole(2_000, 25_000), toMs, undefined);
}

/** A host is told to do things when its agent works and can be reached, now and in the next minute. */
function isReachable(story: Beginning, host: number, atMs: number): boolean {
  const own = story.hosts[host];
  if (own === undefined) return false;
  const span: Span = { fromMs: atMs - 2 * minuteMs, toMs: atMs + 3 * minuteMs };
  const touches = (other: Span): boolean => other.fromMs < span.toMs && span.fromMs < other.toMs;
  const boots = own.boots
    .slice(1)
    .map((boot) => ({ fromMs: boot.zeroMs - 5 * minuteMs, toMs: boot.contactMs + minuteMs }));
  // What waits when a host goes offline may be merged, also across an instant of which its agent knows nothing.
  const offline = own.offline.map((span) => ({ ...span, fromMs: span.fromMs - waitingMax * story.sampleMs }));
  return isAgentAt(own, atMs) && ![...own.absences, ...offline, ...boots].some(touches);
}

/** The next instant, never a full second, at which a host can be reached. */
function reachable(story: Beginning, random: Random, host: number, wishedMs: number): number {
  let atMs = Math.floor(wishedMs / 1_000) * 1_000 + random.whole(1, 999);
  while (!isReachable(story, host, atMs)) atMs += random.whole(1, 30) * 61_000;
  return atMs;
}

/** With a boot of its host each run ends and another one begins. */
function endRunsWithBoots(life: Life, story: Beginning): void {
  const runs = life.runs.splice(0).flatMap((run) => {
    const boot = story.hosts[run.host]?.boots.find(({ zeroMs }) => zeroMs > run.fromMs && zeroMs < run.toMs);
    if (boot === undefined) return [run];
    const endsMs = Math.floor((boot.zeroMs - 1) / story.sampleMs) * story.sampleMs;
    const again = {
      ...run,
      fromMs: boot.zeroMs + 33_000 + (run.fromMs % 7_000),
      base: undefined,
    };
    return [
      { ...run, toMs: endsMs, resets: run.resets.filter((reset) => reset.atMs < endsMs) },
      {
        ...again,
        resets: run.resets
          .filter((reset) => reset.atMs > boot.firstLookMs)
          .map((reset) => ({ ...reset, what: "interface" as const })),
      },
    ];
  });
  life.runs.push(...runs);
}
