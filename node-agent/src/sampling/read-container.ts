import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../agent-error.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import { parseProcessStart } from "../pct/process-start.ts";
import {
  type InterfaceBytes,
  isInit,
  parseContainerInterfaces,
  parseCounter,
  parseDeviceIo,
  parseFirstPid,
  parseFlatKey,
  parseUptimeMs,
  vmidOfInterface,
} from "./parse-kernel.ts";
import type { InterfaceReading, Reading } from "./sample-interval.ts";

/** The kernel's trees that a reading needs. */
export type KernelPaths = Pick<HostPaths, "cgroupRoot" | "procRoot" | "netClassRoot">;

/** What is read once for all containers. */
export interface HostSnapshot {
  /** Monotonic ms of the readings made with it. */
  readonly atMs: number;
  readonly uptimeMs: number;
  /** VMIDs that have a cgroup. */
  readonly cgroups: ReadonlySet<number>;
  readonly interfaces: ReadonlyMap<number, readonly NamedInterface[]>;
}

interface NamedInterface extends InterfaceBytes {
  readonly name: string;
}

/** The root file system of a container, from the probe. */
export interface RootUsage {
  readonly usedBytes: bigint;
  readonly device: string;
}

/** A reading without its root file system, or why there is none. */
export type KernelReading =
  | { readonly kind: "running"; readonly read: (root: RootUsage) => Reading | undefined }
  | { readonly kind: "stopped" }
  | { readonly kind: "unreadable"; readonly reason: string };

/** USER_HZ: the unit of times in /proc/<pid>/stat, 100 on every architecture (proc(5)). */
const MS_PER_CLOCK_TICK = 10;

/**
 * Reads containers from the kernel's files. Everything is synchronous: these files are memory, and a
 * thousand containers cost milliseconds this way and a multiple of that through promises. No process
 * is ever started.
 */
export interface ContainerReader {
  /** What all readings of one tick share. Throws when the kernel's trees are not there. */
  snapshot(atMs: number): HostSnapshot;
  /** The containers of a list that run, with the host's pid of their first process. */
  running<T extends { readonly vmid: number }>(containers: Iterable<T>): (T & { initPid: number })[];
  read(vmid: number, host: HostSnapshot): KernelReading;
  /** Forgets containers that are not in the set. */
  retain(vmids: ReadonlySet<number>): void;
}

/** Where a container's files are; joined once, since joining costs as much as reading. */
interface ContainerFiles {
  readonly cpuStat: string;
  readonly memoryCurrent: string;
  readonly memoryStat: string;
  readonly ioStat: string;
  readonly procs: readonly string[];
  initPid: number | undefined;
}

/** Makes a reader of one host. */
export function createContainerReader(paths: KernelPaths): ContainerReader {
  const known = new Map<number, ContainerFiles>();

  function filesOf(vmid: number): ContainerFiles {
    const found = known.get(vmid);
    if (found !== undefined) return found;
    const cgroup = join(paths.cgroupRoot, "lxc", String(vmid));
    const files: ContainerFiles = {
      cpuStat: join(cgroup, "cpu.stat"),
      memoryCurrent: join(cgroup, "memory.current"),
      memoryStat: join(cgroup, "memory.stat"),
      ioStat: join(cgroup, "io.stat"),
      // systemd guests keep their first process in a scope of its own.
      procs: ["ns/init.scope/cgroup.procs", "ns/cgroup.procs"].map((name) => join(cgroup, name)),
      initPid: undefined,
    };
    known.set(vmid, files);
    return files;
  }

  function findInit(files: ContainerFiles): number | undefined {
    for (const path of files.procs) {
      const pid = parseFirstPid(readIfThere(path) ?? "");
      if (pid === undefined) continue;
      const status = readIfThere(join(paths.procRoot, String(pid), "status"));
      if (status !== undefined && isInit(status)) return pid;
    }
    return undefined;
  }

  function startTicksOf(pid: number): bigint | undefined {
    const stat = readIfThere(join(paths.procRoot, String(pid), "stat"));
    return stat === undefined ? undefined : parseProcessStart(stat);
  }

  /** The run that is there now: a pid given to another process has another start, so ask each time. */
  function runOf(files: ContainerFiles): { pid: number; startTicks: bigint } | undefined {
    const cached = files.initPid;
    const startTicks = cached === undefined ? undefined : startTicksOf(cached);
    if (cached !== undefined && startTicks !== undefined) return { pid: cached, startTicks };
    const pid = findInit(files);
    files.initPid = pid;
    const freshTicks = pid === undefined ? undefined : startTicksOf(pid);
    return pid === undefined || freshTicks === undefined ? undefined : { pid, startTicks: freshTicks };
  }

  function readInterfaces(named: readonly NamedInterface[]): InterfaceReading[] {
    return named.flatMap(({ name, receivedBytes, sentBytes }) => {
      const ifindex = parseCounter(readIfThere(join(paths.netClassRoot, name, "ifindex")) ?? "");
      // Seen from the host, what it sends is what the guest receives.
      const bytes = { guestInBytes: sentBytes, guestOutBytes: receivedBytes };
      return ifindex === undefined ? [] : [{ name, ifindex: Number(ifindex), ...bytes }];
    });
  }

  function read(vmid: number, host: HostSnapshot): KernelReading {
    if (!host.cgroups.has(vmid)) return { kind: "stopped" };
    const files = filesOf(vmid);
    try {
      const run = runOf(files);
      if (run === undefined) return { kind: "stopped" };
      const texts = [files.cpuStat, files.memoryCurrent, files.memoryStat, files.ioStat].map(readIfThere);
      const [cpuStat, memoryCurrent, memoryStat, ioStat] = texts;
      if (cpuStat === undefined || memoryCurrent === undefined) return { kind: "stopped" };
      if (memoryStat === undefined || ioStat === undefined) return { kind: "stopped" };
      const cpuUsageUs = parseFlatKey(cpuStat, "usage_usec");
      const allMemory = parseCounter(memoryCurrent);
      const cache = parseFlatKey(memoryStat, "file");
      if (cpuUsageUs === undefined || allMemory === undefined || cache === undefined) {
        return { kind: "unreadable", reason: "the kernel's files hold no counters" };
      }
      const reading = {
        atMs: host.atMs,
        initStartTicks: run.startTicks,
        startedAtMs: host.atMs - (host.uptimeMs - Number(run.startTicks) * MS_PER_CLOCK_TICK),
        cpuUsageUs,
        // The two files are read one after the other: the cache may have grown in between.
        memoryBytes: allMemory > cache ? allMemory - cache : 0n,
        interfaces: readInterfaces(host.interfaces.get(vmid) ?? []),
      };
      return { kind: "running", read: (root) => withRoot(reading, ioStat, root) };
    } catch (error) {
      return { kind: "unreadable", reason: codeOf(error) ?? "UNKNOWN" };
    }
  }

  return {
    snapshot: (atMs) => readSnapshot(paths, atMs),
    running(containers) {
      const cgroups = readCgroups(paths.cgroupRoot);
      return [...containers].flatMap((container) => {
        if (!cgroups.has(container.vmid)) return [];
        const files = filesOf(container.vmid);
        files.initPid ??= findInit(files);
        return files.initPid === undefined ? [] : [{ ...container, initPid: files.initPid }];
      });
    },
    read,
    retain(vmids) {
      for (const vmid of known.keys()) if (!vmids.has(vmid)) known.delete(vmid);
    },
  };
}

function withRoot(
  reading: Omit<Reading, "diskBytes" | "ioReadBytes" | "ioWriteBytes" | "ioDevice">,
  ioStat: string,
  root: RootUsage,
): Reading | undefined {
  const io = parseDeviceIo(ioStat, root.device);
  if (io === undefined) return undefined;
  return {
    ...reading,
    diskBytes: root.usedBytes,
    ioReadBytes: io.readBytes,
    ioWriteBytes: io.writeBytes,
    ioDevice: root.device,
  };
}

function readSnapshot(paths: KernelPaths, atMs: number): HostSnapshot {
  const uptimeMs = parseUptimeMs(readFileSync(join(paths.procRoot, "uptime"), "utf8"));
  if (uptimeMs === undefined) throw new Error("/proc/uptime holds no time");
  const interfaces = new Map<number, NamedInterface[]>();
  const netDev = readFileSync(join(paths.procRoot, "net/dev"), "utf8");
  for (const [name, bytes] of parseContainerInterfaces(netDev)) {
    const vmid = vmidOfInterface(name);
    const named = { name, ...bytes };
    const others = interfaces.get(vmid);
    if (others === undefined) interfaces.set(vmid, [named]);
    else others.push(named);
  }
  return { atMs, uptimeMs, cgroups: readCgroups(paths.cgroupRoot), interfaces };
}

function readCgroups(cgroupRoot: string): Set<number> {
  try {
    return new Set(readdirSync(join(cgroupRoot, "lxc")).filter(isVmid).map(Number));
  } catch (error) {
    // lxc makes its folder with the first container after a boot.
    if (codeOf(error) === "ENOENT") return new Set();
    throw error;
  }
}

function isVmid(name: string): boolean {
  return /^[1-9]\d{2,8}$/u.test(name);
}

/** A file's text; undefined when the container or process that it speaks of has ended. */
function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT" || code === "ESRCH" || code === "ENODEV") return undefined;
    throw error;
  }
}
