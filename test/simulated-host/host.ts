import { fork } from "node:child_process";
import { once } from "node:events";
import { join, resolve } from "node:path";
import { buildHost } from "./build-host.ts";
import type { SimulatedHostOptions } from "./build-host.ts";
import { ownVmids, readConfig, readConfigIfPresent, writeConfig, writeMembers } from "./cluster-files.ts";
import { lockConfig } from "./config-lock.ts";
import { writeFaults } from "./faults.ts";
import type { FaultRule } from "./faults.ts";
import { readIfPresent } from "./files.ts";
import { layoutOf, openHost } from "./layout.ts";
import type { Host } from "./layout.ts";
import { bringDown } from "./pct/power.ts";
import { bootHost, cutPower, rebootHost } from "./power-supply.ts";
import { simulatedPrograms } from "./programs.ts";
import { readBoot, readRunning } from "./running-record.ts";
import type { GuestLoad, Truth } from "./running-record.ts";
import { changeLoad, machineBootId, readTruth } from "./running.ts";

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
  /** All tools die, all containers stop, and the other members of a cluster see it gone. End its kernel as well. */
  cutPower: () => Promise<void>;
  /** What begins with the power: `onboot: 1` containers start. */
  boot: () => Promise<void>;
  /** Cuts the power and boots again at once. */
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
    containers: async () => ownVmids(host).flatMap((vmid) => viewOf(host, vmid) ?? []),
    setFaults: (faults) => {
      writeFaults(layout, faults);
      writeMembers(host);
    },
    clearFaults: () => {
      writeFaults(layout, []);
      writeMembers(host);
    },
    invocations: async () => readInvocations(host),
    cutPower: () => cutPower(host),
    boot: () => bootHost(host),
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

function viewOf(host: Host, vmid: number): ContainerView | undefined {
  const running = readRunning(host.layout, vmid);
  const config = readConfigIfPresent(host, vmid);
  if (config === undefined) return undefined;
  const view = { vmid, config: config.keys, running: running !== undefined };
  return running === undefined ? view : { ...view, initPid: running.initPid };
}

interface InvocationEntry extends Partial<Invocation> {
  id: string;
}

function readInvocations({ layout }: Host): Invocation[] {
  const text = readIfPresent(join(layout.stateRoot, "invocations.jsonl")) ?? "";
  const found = new Map<string, Invocation>();
  // After the last end of a line is nothing, or a line that is being written.
  for (const line of text.split("\n").slice(0, -1)) {
    // Each line is one append of `main.ts`.
    const { id, ...entry } = JSON.parse(line) as InvocationEntry;
    found.set(id, { argv: [], startedAt: 0, ...found.get(id), ...entry });
  }
  return [...found.values()];
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
