import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { readState, writeState } from "./files.ts";
import { hiddenPveContent } from "./layout.ts";
import type { HostLayout } from "./layout.ts";
import { withMutex } from "./mutex.ts";

/** Which invocations a fault strikes; an absent field matches all. */
export interface FaultMatch {
  program?: "pct" | "pvesm" | "vzdump" | "pveversion" | "zstd" | "lxc-stop";
  /** The subcommand, such as `clone`. For vzdump, which has none, use `program`. */
  command?: string;
  /** Any positional id of the command: the container, or a clone's new id. */
  vmid?: number;
  /** Only the nth invocation (from 1) that fits the rest. */
  nth?: number;
}

/** What a fault does to an invocation; README.md describes each. */
export type FaultEffect =
  | { kind: "exit"; code: number; stderr: string; stdout?: string }
  | { kind: "delay"; ms: number }
  | { kind: "hang" }
  | { kind: "hold"; until: string }
  | { kind: "die-at"; point: string; signal: "KILL" | "TERM" | "INT" }
  | { kind: "lie"; stdout?: string; stderr?: string }
  | { kind: "fail-after"; code: number; stderr: string }
  | { kind: "fail-at"; point: string; message: string }
  | { kind: "deaf-guest" }
  | { kind: "grow-failure" }
  | { kind: "hotplug-failure"; option: string };

/** A fault that strikes single invocations, at most `times` times. */
export interface InvocationFault {
  match: FaultMatch;
  effect: FaultEffect;
  times?: number;
}

/** One line of `faults.json`: a fault of invocations or a state of the whole host. */
export type FaultRule =
  | InvocationFault
  | { noQuorum: true }
  | { pmxcfsDown: true }
  | { storageFull: string }
  | { storageOffline: string }
  | { memberOffline: string };

/** The states of a whole host. */
type HostFault = "noQuorum" | "pmxcfsDown" | "storageFull" | "storageOffline" | "memberOffline";

interface FaultCounters {
  seen: number[];
  struck: number[];
}

/** One invocation, as the rules see it. */
interface InvocationSubject {
  program: string;
  command: string | undefined;
  vmids: number[];
}

/** The rules that hold now; none when there is no file. */
function readFaults(layout: HostLayout): FaultRule[] {
  return readState<FaultRule[]>(layout.faultsFile) ?? [];
}

/** Replaces all rules, forgets what earlier ones counted, and applies the states of the host. */
export function writeFaults(layout: HostLayout, rules: FaultRule[]): void {
  rmSync(countersFile(layout), { force: true });
  writeState(layout.faultsFile, rules);
  applyClusterFileSystem(layout);
}

/** True while a state of the host holds; `id` names the storage where the state has one. */
export function hasFault(layout: HostLayout, fault: HostFault, id?: string): boolean {
  return readFaults(layout).some((rule) => {
    const value = Object.entries(rule).find(([key]) => key === fault)?.[1];
    return value !== undefined && (id === undefined || value === id);
  });
}

/** Makes `etc/pve` empty while pmxcfs is down and brings its content back afterwards. */
export function applyClusterFileSystem(layout: HostLayout): void {
  const hidden = hiddenPveContent(layout);
  const down = hasFault(layout, "pmxcfsDown");
  if (down && !existsSync(hidden)) {
    renameSync(layout.pveRoot, hidden);
    mkdirSync(layout.pveRoot);
  } else if (!down && existsSync(hidden)) {
    rmSync(layout.pveRoot, { recursive: true, force: true });
    renameSync(hidden, layout.pveRoot);
  }
}

/** The effects that strike this invocation; counts it, so ask once for each. */
export async function effectsFor(layout: HostLayout, subject: InvocationSubject): Promise<FaultEffect[]> {
  const rules = readFaults(layout).filter((rule) => "match" in rule);
  if (rules.length === 0) return [];
  return withMutex(layout.root, "fault-counters", () => {
    const file = countersFile(layout);
    const counters = readState<FaultCounters>(file) ?? { seen: [], struck: [] };
    const effects: FaultEffect[] = [];
    for (const [index, rule] of rules.entries()) {
      if (!matches(rule.match, subject)) continue;
      const seen = (counters.seen[index] ?? 0) + 1;
      counters.seen[index] = seen;
      const struck = counters.struck[index] ?? 0;
      if (rule.match.nth !== undefined && rule.match.nth !== seen) continue;
      if (rule.times !== undefined && struck >= rule.times) continue;
      counters.struck[index] = struck + 1;
      effects.push(rule.effect);
    }
    writeState(file, counters);
    return effects;
  });
}

function matches(match: FaultMatch, subject: InvocationSubject): boolean {
  if (match.program !== undefined && match.program !== subject.program) return false;
  if (match.command !== undefined && match.command !== subject.command) return false;
  return match.vmid === undefined || subject.vmids.includes(match.vmid);
}

function countersFile(layout: HostLayout): string {
  return join(layout.stateRoot, "fault-counters.json");
}
