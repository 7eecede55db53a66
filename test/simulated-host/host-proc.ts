import type { Host } from "./layout.ts";
import { readMeter } from "./meter.ts";
import { interfaceName, memoryCurrent } from "./running-record.ts";
import type { HostBoot, RunningContainer } from "./running-record.ts";

/** What the host itself uses beside its containers: 1 % of a core and 900 MB. */
const HOST_CPU_TICKS_PER_SECOND = 1n;
const HOST_MEMORY_KB = 900n * 1024n;

/** The files of `/proc` that speak of the whole host, by name below proc. */
export function hostProcFiles(
  host: Host,
  boot: HostBoot,
  containers: RunningContainer[],
  nowNs: bigint,
): Record<string, string> {
  const upTicks = (nowNs - boot.bootNs) / 10_000_000n;
  const busy = busyTicks(boot, containers, nowNs) + (upTicks * HOST_CPU_TICKS_PER_SECOND) / 100n;
  const allTicks = upTicks * BigInt(host.settings.cores);
  const idle = allTicks > busy ? allTicks - busy : 0n;
  const pressure = "avg10=0.00 avg60=0.00 avg300=0.00 total=0";
  return {
    "net/dev": netDev(containers, nowNs),
    "net/unix": netUnix(containers),
    stat: stat(host, boot, busy, idle),
    meminfo: meminfo(host, containers),
    loadavg: `${loadAverage(containers)} 1/${120 + containers.length * 14} ${boot.nextPid}\n`,
    uptime: `${seconds(upTicks)} ${seconds(idle)}\n`,
    "sys/kernel/random/boot_id": `${boot.bootId}\n`,
    "pressure/cpu": `some ${pressure}\nfull ${pressure}\n`,
    "pressure/io": `some ${pressure}\nfull ${pressure}\n`,
    "pressure/memory": `some ${pressure}\nfull ${pressure}\n`,
  };
}

function busyTicks(boot: HostBoot, containers: RunningContainer[], nowNs: bigint): bigint {
  let usec = boot.endedCpuUsec;
  for (const { meter } of containers) usec += readMeter(meter, nowNs).cpuUsec;
  return usec / 10_000n;
}

function seconds(ticks: bigint): string {
  return `${ticks / 100n}.${(ticks % 100n).toString().padStart(2, "0")}`;
}

function loadAverage(containers: RunningContainer[]): string {
  const active = containers.reduce((sum, { load }) => sum + load.cpuFraction, 0.01).toFixed(2);
  return `${active} ${active} ${active}`;
}

function stat(host: Host, boot: HostBoot, busy: bigint, idle: bigint): string {
  const cores = BigInt(host.settings.cores);
  const user = (busy * 3n) / 4n;
  const row = (name: string, share: bigint): string =>
    `${name} ${user / share} 0 ${(busy - user) / share} ${idle / share} 0 0 0 0 0 0`;
  const perCore = Array.from({ length: host.settings.cores }, (_, core) => row(`cpu${core}`, cores));
  const btime = Math.floor(boot.bootEpochMs / 1000);
  return [
    row("cpu ", 1n),
    ...perCore,
    "ctxt 1000000",
    `btime ${btime}`,
    `processes ${boot.nextPid}`,
    "procs_running 1",
    "procs_blocked 0",
    "",
  ].join("\n");
}

function meminfo(host: Host, containers: RunningContainer[]): string {
  const total = BigInt(host.settings.memoryMb) * 1024n;
  const guests = containers.reduce((sum, running) => sum + memoryCurrent(running) / 1024n, 0n);
  const wanted = HOST_MEMORY_KB + guests;
  const used = wanted < total ? wanted : total;
  const row = (name: string, kb: bigint): string => `${`${name}:`.padEnd(16)}${`${kb}`.padStart(8)} kB`;
  return [
    row("MemTotal", total),
    row("MemFree", total - used),
    row("MemAvailable", total - used),
    row("Buffers", 0n),
    row("Cached", 0n),
    row("SwapTotal", 8_388_608n),
    row("SwapFree", 8_388_608n),
    "",
  ].join("\n");
}

/** The host's view: what an interface transmits is what its container receives. */
function netDev(containers: RunningContainer[], nowNs: bigint): string {
  const row = (name: string, received: bigint, sent: bigint): string =>
    `${name.padStart(6)}: ${received} ${received / 700n} 0 0 0 0 0 0 ${sent} ${sent / 700n} 0 0 0 0 0 0`;
  const rows: string[] = [];
  let inbound = 0n;
  let outbound = 0n;
  for (const { vmid, meter, nics } of containers) {
    const used = readMeter(meter, nowNs);
    for (const [index, nic] of nics.entries()) {
      // All of a guest's traffic uses its first interface.
      const guestIn = index === 0 ? used.netInBytes - nic.baseIn : 0n;
      const guestOut = index === 0 ? used.netOutBytes - nic.baseOut : 0n;
      inbound += guestIn;
      outbound += guestOut;
      rows.push(row(interfaceName(vmid, nic), guestOut, guestIn));
    }
  }
  return [
    "Inter-|   Receive                                                |  Transmit",
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed",
    row("lo", 4096n, 4096n),
    row("eno1", inbound, outbound),
    row("vmbr0", inbound, outbound),
    ...rows,
    "",
  ].join("\n");
}

/** lxc's command sockets: Proxmox takes a container for running while its line is here. */
function netUnix(containers: RunningContainer[]): string {
  const socket = (inode: number, path: string): string =>
    `0000000000000000: 00000002 00000000 00010000 0001 01 ${inode} ${path}`;
  return [
    "Num       RefCount Protocol Flags    Type St Inode Path",
    socket(11_000, "/run/systemd/notify"),
    ...containers.map(({ vmid, initPid }) => socket(initPid, `@/var/lib/lxc/${vmid}/command`)),
    "",
  ].join("\n");
}
