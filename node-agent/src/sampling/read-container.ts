import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../agent-error.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import { parseProcessStart } from "../pct/process-start.ts";
import { createOpenFiles } from "./open-files.ts";
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
 * Reads containers from the kernel's files. Everything is synchronous: these files are memory, and
 * promises would cost a multiple of the reading. No process is ever started.
 */
export interface ContainerReader {
  /** What all readings of one tick share. Throws when the kernel's trees are not there. */
  snapshot(atMs: number): HostSnapshot;
  /** The containers of a list that run, with the host's pid of their first process. */
  running<T extends { readonly vmid: number }>(containers: Iterable<T>): (T & { initPid: number })[];
  read(vmid: number, host: HostSnapshot): KernelReading;
  /** Forgets containers that are not in the set, and closes what the last readings did not need. */
  retain(vmids: ReadonlySet<number>): void;
  close(): void;
}

/** Where a container's files are; joined once, since joining costs as much as reading. */
interface ContainerFiles {
  readonly cpuStat: string;
  readonly memoryCurrent: string;
  readonly memoryStat: string;
  readonly ioStat: string;
  readonly procs: readonly string[];
  /** The first process as it was found last. */
  init: InitProcess | undefined;
}

interface InitProcess {
  readonly pid: number;
  /** Its /proc/<pid>/stat. */
  readonly statPath: string;
  readonly startTicks: bigint;
}

/** Makes a reader of one host. */
export function createContainerReader(paths: KernelPaths): ContainerReader {
  return new FileContainerReader(paths);
}

class FileContainerReader implements ContainerReader {
  readonly #paths: KernelPaths;
  readonly #known = new Map<number, ContainerFiles>();
  readonly #open = createOpenFiles();

  constructor(paths: KernelPaths) {
    this.#paths = paths;
  }

  running<T extends { readonly vmid: number }>(containers: Iterable<T>): (T & { initPid: number })[] {
    const cgroups = readCgroups(this.#paths.cgroupRoot);
    return [...containers].flatMap((container) => {
      if (!cgroups.has(container.vmid)) return [];
      const files = this.#filesOf(container.vmid);
      files.init ??= this.#findInit(files);
      return files.init === undefined ? [] : [{ ...container, initPid: files.init.pid }];
    });
  }

  snapshot(atMs: number): HostSnapshot {
    return readSnapshot(this.#paths, atMs);
  }

  read(vmid: number, host: HostSnapshot): KernelReading {
    if (!host.cgroups.has(vmid)) return { kind: "stopped" };
    try {
      return this.#readNow(this.#filesOf(vmid), host, host.interfaces.get(vmid) ?? []);
    } catch (error) {
      return { kind: "unreadable", reason: codeOf(error) ?? "UNKNOWN" };
    }
  }

  retain(vmids: ReadonlySet<number>): void {
    for (const vmid of this.#known.keys()) if (!vmids.has(vmid)) this.#known.delete(vmid);
    this.#open.closeUnread();
  }

  close(): void {
    this.#open.close();
  }

  #readNow(files: ContainerFiles, host: HostSnapshot, interfaces: readonly NamedInterface[]): KernelReading {
    const startTicks = this.#startTicksOf(files);
    const cpuStat = this.#open.read(files.cpuStat);
    const memoryCurrent = this.#open.read(files.memoryCurrent);
    const memoryStat = this.#open.read(files.memoryStat);
    const ioStat = this.#open.read(files.ioStat);
    if (startTicks === undefined || cpuStat === undefined) return { kind: "stopped" };
    if (memoryCurrent === undefined || memoryStat === undefined || ioStat === undefined) {
      return { kind: "stopped" };
    }
    const cpuUsageUs = parseFlatKey(cpuStat, "usage_usec");
    const allMemory = parseCounter(memoryCurrent);
    const cache = parseFlatKey(memoryStat, "file");
    if (cpuUsageUs === undefined || allMemory === undefined || cache === undefined) {
      return { kind: "unreadable", reason: "the kernel's files hold no counters" };
    }
    const reading = {
      atMs: host.atMs,
      initStartTicks: startTicks,
      startedAtMs: host.atMs - (host.uptimeMs - Number(startTicks) * MS_PER_CLOCK_TICK),
      cpuUsageUs,
      // The two files are read one after the other: the cache may have grown in between.
      memoryBytes: allMemory > cache ? allMemory - cache : 0n,
      interfaces: interfaces.flatMap((each) => this.#readInterface(each)),
    };
    return { kind: "running", read: (root) => withRoot(reading, ioStat, root) };
  }

  #readInterface({ name, receivedBytes, sentBytes }: NamedInterface): InterfaceReading[] {
    const text = this.#open.read(`${this.#paths.netClassRoot}/${name}/ifindex`);
    const ifindex = parseCounter(text ?? "");
    // Seen from the host, what it sends is what the guest receives.
    const bytes = { guestInBytes: sentBytes, guestOutBytes: receivedBytes };
    return ifindex === undefined ? [] : [{ name, ifindex: Number(ifindex), ...bytes }];
  }

  /** Start of the run that is there now; a pid may have been given to another process meanwhile. */
  #startTicksOf(files: ContainerFiles): bigint | undefined {
    const known = files.init;
    const isSame = known !== undefined && this.#readStartTicks(known.statPath) === known.startTicks;
    if (!isSame) files.init = this.#findInit(files);
    return files.init?.startTicks;
  }

  #readStartTicks(statPath: string): bigint | undefined {
    const stat = this.#open.read(statPath);
    return stat === undefined ? undefined : parseProcessStart(stat);
  }

  #findInit(files: ContainerFiles): InitProcess | undefined {
    const pid = files.procs
      .map((path) => parseFirstPid(this.#open.read(path) ?? ""))
      .find((first) => first !== undefined && this.#isInit(first));
    if (pid === undefined) return undefined;
    const statPath = this.#procFile(pid, "stat");
    const startTicks = this.#readStartTicks(statPath);
    return startTicks === undefined ? undefined : { pid, statPath, startTicks };
  }

  #isInit(pid: number): boolean {
    return isInit(this.#open.read(this.#procFile(pid, "status")) ?? "");
  }

  #procFile(pid: number, name: string): string {
    return `${this.#paths.procRoot}/${pid}/${name}`;
  }

  #filesOf(vmid: number): ContainerFiles {
    const found = this.#known.get(vmid);
    if (found !== undefined) return found;
    const cgroup = join(this.#paths.cgroupRoot, "lxc", String(vmid));
    const files: ContainerFiles = {
      cpuStat: join(cgroup, "cpu.stat"),
      memoryCurrent: join(cgroup, "memory.current"),
      memoryStat: join(cgroup, "memory.stat"),
      ioStat: join(cgroup, "io.stat"),
      // systemd guests keep their first process in a scope of its own.
      procs: ["ns/init.scope/cgroup.procs", "ns/cgroup.procs"].map((name) => join(cgroup, name)),
      init: undefined,
    };
    this.#known.set(vmid, files);
    return files;
  }
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
