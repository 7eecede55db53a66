import type { CounterName, Guest, Pattern, Reset, Run } from "./story.ts";

const minuteMs = 60_000;

/** What the kernel of a host shows of a container. */
export interface Shown {
  readonly counters: Readonly<Record<CounterName, bigint>>;
  /** Number of network interfaces that the run had before this one. */
  readonly interfaceNo: number;
  readonly memoryBytes: bigint;
  readonly diskBytes: bigint;
}

/** What the kernel shows of a run at an instant of it. Counters are a function of time, so everybody may ask. */
export function shownAt(guest: Guest, run: Run, atMs: number): Shown {
  const counter = (name: CounterName): bigint => {
    const reset = run.resets.findLast((one) => one.atMs <= atMs && concerns(one, name));
    const sinceStart = usedIn(guest.patterns[name], atMs - run.fromMs);
    if (reset !== undefined) return sinceStart - usedIn(guest.patterns[name], reset.atMs - run.fromMs);
    return (run.base?.[name] ?? 0n) + sinceStart;
  };
  return {
    counters: {
      cpu: counter("cpu"),
      in: counter("in"),
      out: counter("out"),
      read: counter("read"),
      write: counter("write"),
    },
    interfaceNo: run.resets.filter((one) => one.atMs <= atMs && one.what === "interface").length,
    memoryBytes: guest.memoryBytes + BigInt(Math.floor(atMs / 420_000) % 37) * 1_000_003n,
    diskBytes: guest.diskBytes + BigInt(Math.floor(atMs / 3_000_000) % 53) * 10_000_019n,
  };
}

function concerns({ what }: Reset, name: CounterName): boolean {
  if (name === "in" || name === "out") return what !== "disk";
  return what === "disk" && name !== "cpu";
}

/** What is used in the first so many ms of a run. */
function usedIn(pattern: Pattern, elapsedMs: number): bigint {
  const minutes = Math.floor(elapsedMs / minuteMs);
  const periods = Math.floor(minutes / pattern.before.length);
  const inPeriod = pattern.before[minutes % pattern.before.length] ?? 0n;
  return BigInt(periods) * pattern.perPeriod + inPeriod + (BigInt(elapsedMs) * pattern.perSecond) / 1_000n;
}

/** Makes a pattern of what is used in each of its minutes. */
export function patternOf(perMinute: readonly bigint[], perSecond: bigint): Pattern {
  const before: bigint[] = [];
  let sum = 0n;
  for (const amount of perMinute) {
    before.push(sum);
    sum += amount;
  }
  return { before, perPeriod: sum, perSecond };
}
