import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { buildHost, writeBoot } from "./build-host.ts";
import type { SimulatedHostOptions } from "./build-host.ts";
import { ownVmids, readConfig, writeConfig, writeMembers } from "./cluster-files.ts";
import { lockConfig } from "./config-lock.ts";
import { writeFaults } from "./faults.ts";
import type { FaultRule } from "./faults.ts";
import { readIfPresent } from "./files.ts";
import { layoutOf, openHost } from "./layout.ts";
import type { Host } from "./layout.ts";
import { bringDown, bringUp } from "./pct/power.ts";
import { simulatedPrograms } from "./programs.ts";
import { publishHost } from "./publish.ts";
import { allRunning, readBoot, readRunning } from "./running-record.ts";
import type { GuestLoad, Truth } from "./running-record.ts";
import { changeLoad, endLife, machineBootId, readTruth, unmountRootfs } from "./running.ts";
import { readTasks, sweepTasks } from "./task-log.ts";

export type { SimulatedHostOptions } from "./build-host.ts";
export type { FaultRule } from "./faults.ts";
export type { GuestLoad, Truth } from "./running-record.ts";

/** Where the parts of a host lie; each is the absolute path of what a real host has at the root. */
export interface HostPaths {
  pct: string;
  pvesm: string;
  vzdump: string;
  pveversion: string;
  umount: string;
  zstd: string;
  lxcStop: string;
  pveRoot: string;
  cgroupRoot: string;
  procRoot: string;
  /** `sys/class/net`, for the index of each interface. */
  netClassRoot: string;
  taskLogRoot: string;
  lockRoot: string;
  lxcRoot: string;
  runRoot: string;
  storageRoot: string;
}

/** A container as its file and the kernel show it. */
export interface ContainerView {
  vmid: number;
  config: Record<string, string>;
  running: boolean;
  initPid?: number;
}

/** One call of an executable. Without an end it still runs or was killed. */
export interface Invocation {
  argv: string[];
  /** Milliseconds since 1970. */
  startedAt: number;
  endedAt?: number;
  exitCode?: number;
}

/** A Proxmox VE host that is not there. */
export interface SimulatedHost {
  root: string;
  nodeName: string;
  templateVmid: number;
  paths: HostPaths;
  containers: () => Promise<ContainerView[]>;
  /** Replaces all faults; they strike from the next invocation on. */
  setFaults: (faults: FaultRule[]) => void;
  clearFaults: () => void;
  invocations: () => Promise<Invocation[]>;
  /** Cuts the power and boots again: all tools die, all containers stop, `onboot: 1` ones start. */
  reboot: () => Promise<void>;
  /** Spawns the process that advances the counters; it dies with this process. */
  startKernel: () => Promise<{ stop: () => Promise<void> }>;
  setLoad: (vmid: number, load: GuestLoad) => Promise<void>;
  /** What a container consumed in all its lives, to compare with what was metered. */
  truth: (vmid: number) => Promise<Truth>;
  /** Ends a container from within, as `poweroff` or a crash of its init does. */
  crash: (vmid: number) => Promise<void>;
  /** Leaves a `lock:` in a container's file whose holder is gone. */
  leaveLock: (vmid: number, lock: string) => void;
  /** Holds a container's file lock, as a hanging tool does, until released. */
  holdConfigLock: (vmid: number) => Promise<() => Promise<void>>;
}

/** Makes a host, or opens the one that `root` already holds (its first settings then stay). */
export async function createSimulatedHost(options: SimulatedHostOptions): Promise<SimulatedHost> {
  const root = resolve(options.root);
  await buildHost({ ...options, root }, layoutOf(root));
  return openSimulatedHost(root);
}

/** Opens a host. If the machine below was restarted since, the host has been too. */
async function openSimulatedHost(root: string): Promise<SimulatedHost> {
  const host = openHost(resolve(root));
  if (readBoot(host.layout).machineBootId !== machineBootId()) await rebootHost(host);
  const { layout } = host;
  return {
    root: layout.root,
    nodeName: host.settings.nodeName,
    templateVmid: host.settings.templateVmid,
    paths: pathsOf(host),
    containers: async () => ownVmids(host).map((vmid) => viewOf(host, vmid)),
    setFaults: (faults) => {
      writeFaults(layout, faults);
      writeMembers(host);
    },
    clearFaults: () => {
      writeFaults(layout, []);
      writeMembers(host);
    },
    invocations: async () => readInvocations(host),
    reboot: () => rebootHost(host),
    startKernel: () => startKernel(layout.root),
    setLoad: (vmid, load) => changeLoad(host, vmid, load),
    truth: (vmid) => readTruth(host, vmid),
    crash: (vmid) => bringDown(host, vmid),
    leaveLock: (vmid, lock) => {
      const config = readConfig(host, vmid);
      writeConfig(host, vmid, { ...config, keys: { ...config.keys, lock } });
    },
    holdConfigLock: (vmid) => lockConfig(host, vmid),
  };
}

function pathsOf({ layout }: Host): HostPaths {
  const program = (name: string): string => join(layout.bin, name);
  return {
    pct: program("pct"),
    pvesm: program("pvesm"),
    vzdump: program("vzdump"),
    pveversion: program("pveversion"),
    umount: program("umount"),
    zstd: program("zstd"),
    lxcStop: program("lxc-stop"),
    pveRoot: layout.pveRoot,
    cgroupRoot: layout.cgroupRoot,
    procRoot: layout.procRoot,
    netClassRoot: layout.netClassRoot,
    taskLogRoot: layout.taskLogRoot,
    lockRoot: layout.lockRoot,
    lxcRoot: layout.lxcRoot,
    runRoot: layout.runRoot,
    storageRoot: layout.storageRoot,
  };
}

function viewOf(host: Host, vmid: number): ContainerView {
  const running = readRunning(host.layout, vmid);
  const view = { vmid, config: readConfig(host, vmid).keys, running: running !== undefined };
  return running === undefined ? view : { ...view, initPid: running.initPid };
}

interface InvocationEntry extends Partial<Invocation> {
  id: string;
}

function readInvocations({ layout }: Host): Invocation[] {
  const text = readIfPresent(join(layout.stateRoot, "invocations.jsonl")) ?? "";
  const found = new Map<string, Invocation>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    // Each line is one append of `main.ts`.
    const { id, ...entry } = JSON.parse(line) as InvocationEntry;
    found.set(id, { argv: [], startedAt: 0, ...found.get(id), ...entry });
  }
  return [...found.values()];
}

async function rebootHost(host: Host): Promise<void> {
  const { layout } = host;
  killTools(host);
  for (const { vmid } of allRunning(layout)) {
    await endLife(host, vmid);
    unmountRootfs(layout, vmid);
  }
  writeBoot(layout);
  await sweepTasks(host);
  await publishHost(host);
  for (const vmid of ownVmids(host)) {
    const config = readConfig(host, vmid);
    const { onboot, template, lock } = config.keys;
    if (onboot !== "1" || template === "1" || lock !== undefined) continue;
    const quiet = { say: () => {}, warn: () => {}, reach: async () => {} };
    await bringUp({ host, payload: {}, effects: [], ...quiet }, vmid, config);
  }
}

/** Ends the tools that run on a host whose power is cut: they are known by the root they were given. */
function killTools(host: Host): void {
  const text = readIfPresent(join(host.layout.stateRoot, "invocations.jsonl")) ?? "";
  const fronts = [...text.matchAll(/"id":"(\d+)-\d+"/gu)].map((match) => Number(match[1]));
  const workers = readTasks(host)
    .filter(({ status }) => status === undefined)
    .map(({ upid }) => Number.parseInt(upid.split(":")[2] ?? "0", 16));
  for (const pid of new Set([...fronts, ...workers])) {
    if (!commandLine(pid).includes(host.layout.root)) continue;
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended by itself in this moment.
    }
  }
}

function commandLine(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}

async function startKernel(root: string): Promise<{ stop: () => Promise<void> }> {
  const { kernel: program, compileCache } = await simulatedPrograms();
  const kernel = fork(program, [root], {
    execArgv: [],
    env: { ...process.env, NODE_COMPILE_CACHE: compileCache },
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  await once(kernel, "message");
  return {
    stop: async () => {
      if (kernel.exitCode !== null || kernel.signalCode !== null) return;
      const ended = once(kernel, "exit");
      kernel.kill("SIGKILL");
      await ended;
    },
  };
}
