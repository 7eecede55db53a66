import { existsSync, lstatSync, mkdirSync, renameSync, rmSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { errorCode } from "./failure.ts";
import { namesIn, replaceFile } from "./files.ts";
import { hostProcFiles } from "./host-proc.ts";
import type { Host, HostLayout } from "./layout.ts";
import { readMeter } from "./meter.ts";
import { withMutex } from "./mutex.ts";
import { processStart } from "./process-start.ts";
import { PAGE_CACHE_BYTES, allRunning, interfaceName, memoryCurrent, readBoot } from "./running-record.ts";
import type { GuestNic, RunningContainer } from "./running-record.ts";

const MIB = 1024n * 1024n;
/** Period of the CPU bandwidth control: 100 ms. */
const CPU_PERIOD_USEC = 100_000n;

/**
 * Writes a container's part of the cgroup and proc trees: everything, or only what moves with time.
 * Only call with the container's running lock held, so that no older life overwrites a newer one.
 */
export function publishContainer(host: Host, running: RunningContainer, nowNs: bigint, what: "all" | "counters"): void {
  const cgroup = cgroupOf(host.layout, running.vmid);
  if (what === "all") {
    mkdirSync(join(cgroup, "ns/init.scope"), { recursive: true });
    writeFiles(cgroup, steadyFiles(running));
    publishProcess(host.layout, running);
    for (const nic of running.nics) publishInterface(host.layout, running.vmid, nic);
  }
  writeFiles(cgroup, counterFiles(running, nowNs));
}

/** Takes a container that stopped out of the cgroup, proc and sys trees. */
export function withdrawContainer(layout: HostLayout, running: RunningContainer): void {
  removeAtOnce(cgroupOf(layout, running.vmid));
  removeAtOnce(join(layout.procRoot, String(running.initPid)));
  for (const nic of running.nics) {
    removeAtOnce(join(layout.netClassRoot, interfaceName(running.vmid, nic)));
  }
}

/** Writes the files of proc that speak of the whole host, and drops what ended from them. */
export async function publishHost(host: Host): Promise<void> {
  const { layout } = host;
  await withMutex(layout.root, "publish-host", () => {
    const containers = allRunning(layout);
    const files = hostProcFiles(host, readBoot(layout), containers, process.hrtime.bigint());
    mkdirSync(join(layout.procRoot, "net"), { recursive: true });
    mkdirSync(join(layout.procRoot, "sys/kernel/random"), { recursive: true });
    mkdirSync(join(layout.procRoot, "pressure"), { recursive: true });
    writeFiles(layout.procRoot, files);
    dropInterfaces(layout, containers);
    dropEndedProcesses(layout);
  });
}

function cgroupOf(layout: HostLayout, vmid: number): string {
  return join(layout.cgroupRoot, "lxc", String(vmid));
}

function counterFiles(running: RunningContainer, nowNs: bigint): Record<string, string> {
  const used = readMeter(running.meter, nowNs);
  const user = (used.cpuUsec * 3n) / 4n;
  const elapsedUsec = (nowNs - running.startNs) / 1000n;
  const limited = running.limits.cpulimit > 0;
  const io = `rbytes=${used.ioReadBytes} wbytes=${used.ioWriteBytes} rios=${used.ioReadBytes / 4096n} wios=${used.ioWriteBytes / 4096n} dbytes=0 dios=0`;
  return {
    "cpu.stat": lines([
      `usage_usec ${used.cpuUsec}`,
      `user_usec ${user}`,
      `system_usec ${used.cpuUsec - user}`,
      "nice_usec 0",
      "core_sched.force_idle_usec 0",
      `nr_periods ${limited ? elapsedUsec / CPU_PERIOD_USEC : 0n}`,
      `nr_throttled ${limited ? used.throttledUsec / CPU_PERIOD_USEC : 0n}`,
      `throttled_usec ${limited ? used.throttledUsec : 0n}`,
      "nr_bursts 0",
      "burst_usec 0",
    ]),
    "io.stat": lines(ioDevices(running.rootfs).map((device) => `${device} ${io}`)),
  };
}

/**
 * The devices that one write to the root file system passes through. On a stacked storage each of
 * them counts the same bytes again; the first is the one that the root is mounted from.
 */
function ioDevices(rootfs: string): string[] {
  const device = deviceNumber(rootfs);
  return [device, ...["252:1", "252:2", "259:3"].filter((other) => other !== device)];
}

/** `major:minor` of the device below a folder, split as Linux packs a dev_t. */
function deviceNumber(path: string): string {
  const { dev } = statSync(path, { bigint: true });
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

/** What changes with the configuration or the load only, and not with time. */
function steadyFiles(running: RunningContainer): Record<string, string> {
  const { cores, cpulimit, cpuunits, memoryMb, swapMb } = running.limits;
  const memory = memoryCurrent(running);
  const memoryMax = BigInt(memoryMb) * MIB;
  const high = memoryMb >= 16_384 ? memoryMax - 128n * MIB : BigInt(memoryMb) * 1024n * 1016n;
  const pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0";
  const both = lines([pressure, pressure.replace("some", "full")]);
  return {
    "cpu.max": cpulimit > 0 ? `${Math.round(cpulimit * 100_000)} 100000\n` : "max 100000\n",
    "cpu.weight": `${cpuunits}\n`,
    "cpuset.cpus": `${cores > 1 ? `0-${cores - 1}` : "0"}\n`,
    "memory.max": `${memoryMax}\n`,
    "memory.high": `${high}\n`,
    "memory.swap.max": `${BigInt(swapMb) * MIB}\n`,
    "memory.current": `${memory}\n`,
    "memory.stat": lines([
      `anon ${memory > PAGE_CACHE_BYTES ? memory - PAGE_CACHE_BYTES : 0n}`,
      `file ${memory > PAGE_CACHE_BYTES ? PAGE_CACHE_BYTES : 0n}`,
      "kernel 1048576",
      "shmem 65536",
    ]),
    "memory.swap.current": "0\n",
    "memory.events": lines(["low 0", "high 0", "max 0", "oom 0", "oom_kill 0"]),
    "cpu.pressure": both,
    "io.pressure": both,
    "memory.pressure": both,
    "pids.current": "14\n",
    "cgroup.procs": "",
    "ns/cgroup.procs": "",
    "ns/init.scope/cgroup.procs": `${running.initPid}\n`,
  };
}

function publishProcess(layout: HostLayout, running: RunningContainer): void {
  const { initPid, startTicks, rootfs, vmid } = running;
  const folder = join(layout.procRoot, String(initPid));
  if (existsSync(folder)) return;
  const building = `${folder}.new`;
  mkdirSync(building, { recursive: true });
  symlinkSync(rootfs, join(building, "root"));
  const zeros = "0 ".repeat(8).trim();
  writeFiles(building, {
    // Field 22 is the start time in clock ticks since boot (proc(5)).
    stat: `${initPid} (systemd) S ${initPid - 1} ${initPid} ${initPid} 0 -1 4194560 ${zeros} 20 0 1 0 ${startTicks} 22000000 3000 18446744073709551615\n`,
    status: lines([
      "Name:\tsystemd",
      "State:\tS (sleeping)",
      `Tgid:\t${initPid}`,
      `Pid:\t${initPid}`,
      `PPid:\t${initPid - 1}`,
      "Uid:\t100000\t100000\t100000\t100000",
      `NSpid:\t${initPid}\t1`,
    ]),
    cgroup: `0::/lxc/${vmid}/ns/init.scope\n`,
    comm: "systemd\n",
  });
  renameSync(building, folder);
}

function publishInterface(layout: HostLayout, vmid: number, nic: GuestNic): void {
  const folder = join(layout.netClassRoot, interfaceName(vmid, nic));
  mkdirSync(folder, { recursive: true });
  writeFiles(folder, {
    ifindex: `${nic.ifindex}\n`,
    address: `fe:${nic.mac.slice(3).toLowerCase()}\n`,
    operstate: "up\n",
  });
}

function dropInterfaces(layout: HostLayout, containers: RunningContainer[]): void {
  const live = new Set(
    containers.flatMap((container) => container.nics.map((nic) => interfaceName(container.vmid, nic))),
  );
  for (const name of namesIn(layout.netClassRoot)) {
    if (name.startsWith("veth") && !live.has(name)) removeAtOnce(join(layout.netClassRoot, name));
  }
}

/** Forgets the links to real processes (the tools' own) that have ended. */
function dropEndedProcesses(layout: HostLayout): void {
  for (const name of namesIn(layout.procRoot)) {
    const path = join(layout.procRoot, name);
    // A container's own process may go between the look into the folder and the look at it.
    if (!/^\d+$/u.test(name) || lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() !== true) continue;
    if (processStart(Number(name)) === undefined) rmSync(path, { force: true });
  }
}

/** Writes files of one folder; a folder that vanished belongs to a life that ended. */
function writeFiles(folder: string, files: Record<string, string>): void {
  for (const [name, text] of Object.entries(files)) {
    try {
      replaceFile(join(folder, name), text);
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }
}

/** Removes a folder so that no reader sees it half empty. */
function removeAtOnce(path: string): void {
  const grave = `${path}.removed.${process.pid}`;
  try {
    renameSync(path, grave);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return;
    throw error;
  }
  rmSync(grave, { recursive: true, force: true, maxRetries: 3 });
}

function lines(all: string[]): string {
  return `${all.join("\n")}\n`;
}
