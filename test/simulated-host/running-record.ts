import { existsSync } from "node:fs";
import { join } from "node:path";
import { namesIn, readState } from "./files.ts";
import type { HostLayout } from "./layout.ts";
import type { Amounts, Meter } from "./meter.ts";

/** Memory that a guest's page cache holds. */
export const PAGE_CACHE_BYTES = 12n * 1024n * 1024n;
const MIB = 1024n * 1024n;

/** What the processes in a container ask of the host. */
export interface GuestLoad {
  /** CPUs used, 1 is one whole core; the container's limits cut it. */
  cpuFraction: number;
  memoryMb: number;
  /** Bytes per second towards the guest. */
  netInBps: number;
  netOutBps: number;
  ioReadBps: number;
  ioWriteBps: number;
}

/** An idle guest: a few daemons that tick. */
export const IDLE_LOAD: GuestLoad = {
  cpuFraction: 0.004,
  memoryMb: 36,
  netInBps: 180,
  netOutBps: 95,
  ioReadBps: 0,
  ioWriteBps: 2048,
};

/** The host's half of a network interface. It is made anew, at zero, when its MAC changes. */
export interface GuestNic {
  key: string;
  name: string;
  mac: string;
  ifindex: number;
  /** What the container's meter read when this interface appeared. */
  baseIn: bigint;
  baseOut: bigint;
  /** Address with prefix length, `dhcp`, or undefined without IPv4. */
  ip: string | undefined;
  gateway: string | undefined;
  /** Monotonic time at which DHCP has answered. */
  addressFromNs: bigint;
}

/** What the kernel enforces on a container. */
export interface GuestLimits {
  cores: number;
  /** 0 is none. */
  cpulimit: number;
  cpuunits: number;
  memoryMb: number;
  swapMb: number;
}

/** One life of a container, from start to stop. */
export interface RunningContainer {
  vmid: number;
  hostname: string;
  initPid: number;
  startNs: bigint;
  /** Clock ticks (100 per second) between the host's boot and the start. */
  startTicks: bigint;
  meter: Meter;
  load: GuestLoad;
  limits: GuestLimits;
  nics: GuestNic[];
  /** The folder that stands for the root file system. */
  rootfs: string;
}

/** One boot of the host. */
export interface HostBoot {
  bootId: string;
  bootNs: bigint;
  bootEpochMs: number;
  /** Boot id of the machine that carries the simulation: monotonic times are only valid below it. */
  machineBootId: string;
  nextPid: number;
  nextIfindex: number;
  /** CPU of the lives that ended in this boot, so that the host's own counters never fall. */
  endedCpuUsec: bigint;
}

/** All that a container ever consumed, and in how many lives. */
export interface Truth extends Amounts {
  incarnations: number;
}

/** The boot that the host is in. */
export function readBoot(layout: HostLayout): HostBoot {
  const boot = readState<HostBoot>(join(layout.stateRoot, "boot.json"));
  if (boot === undefined) throw new Error(`host at ${layout.root} never booted`);
  return boot;
}

/** The life of a container that runs, or undefined. */
export function readRunning(layout: HostLayout, vmid: number): RunningContainer | undefined {
  return readState(runningFile(layout, vmid));
}

/** True while the container runs. */
export function isRunning(layout: HostLayout, vmid: number): boolean {
  return existsSync(runningFile(layout, vmid));
}

/** Every container that runs, by ascending id. */
export function allRunning(layout: HostLayout): RunningContainer[] {
  return namesIn(join(layout.stateRoot, "running"))
    .flatMap((name) => /^(\d+)\.json$/u.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => a - b)
    .flatMap((vmid) => readRunning(layout, vmid) ?? []);
}

/** The name of an interface's half on the host. */
export function interfaceName(vmid: number, nic: GuestNic): string {
  return `veth${vmid}i${nic.key.slice(3)}`;
}

/** Bytes of memory that a container's guest occupies, page cache included. */
export function memoryCurrent(running: RunningContainer): bigint {
  const wanted = BigInt(Math.round(running.load.memoryMb)) * MIB + PAGE_CACHE_BYTES;
  const most = BigInt(running.limits.memoryMb) * MIB;
  return wanted < most ? wanted : most;
}

/** Where the record of a running container lies. */
export function runningFile(layout: HostLayout, vmid: number): string {
  return join(layout.stateRoot, "running", `${vmid}.json`);
}

/** Where the sums of a container's past lives lie. */
export function truthFile(layout: HostLayout, vmid: number): string {
  return join(layout.stateRoot, "truth", `${vmid}.json`);
}

/** Where the load of a container's guest lies; it outlives restarts. */
export function loadFile(layout: HostLayout, vmid: number): string {
  return join(layout.stateRoot, "loads", `${vmid}.json`);
}
