import { mkdirSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { ConfigSection } from "./container-config.ts";
import { CommandFailure } from "./failure.ts";
import { readIfPresent, readState, writeState } from "./files.ts";
import { isWithoutPower } from "./layout.ts";
import type { Host, HostLayout } from "./layout.ts";
import { addAmounts, changeRates, readMeter, startMeter, zeroAmounts } from "./meter.ts";
import type { Amounts } from "./meter.ts";
import { withMutex } from "./mutex.ts";
import { dhcpAddress, parseProperties } from "./properties.ts";
import { publishContainer, publishHost, withdrawContainer } from "./publish.ts";
import { IDLE_LOAD, loadFile, readBoot, readRunning, runningFile, truthFile } from "./running-record.ts";
import type { GuestLimits, GuestLoad, GuestNic, HostBoot, RunningContainer, Truth } from "./running-record.ts";

/** Begins a life: fresh init pid, fresh interfaces, all counters at zero. */
export async function beginLife(host: Host, vmid: number, config: ConfigSection, rootfs: string): Promise<void> {
  const { layout } = host;
  const before = await changeBoot(layout, (boot) => ({
    ...boot,
    nextPid: boot.nextPid + 40,
    nextIfindex: boot.nextIfindex + 40,
  }));
  const nowNs = process.hrtime.bigint();
  const limits = limitsOf(host, config);
  const load = readState<GuestLoad>(loadFile(layout, vmid)) ?? IDLE_LOAD;
  const nics = nicKeys(config).map((key, index) =>
    newNic(host, key, config.keys[key] ?? "", before.nextIfindex + index, nowNs, zeroAmounts()),
  );
  await changeRunning(host, vmid, () => {
    // A migration of another member may have come so far in the moment of the cut.
    if (isWithoutPower(layout)) throw new CommandFailure("No route to host", 255);
    return {
      vmid,
      hostname: config.keys["hostname"] ?? `CT${vmid}`,
      initPid: before.nextPid,
      startNs: nowNs,
      startTicks: (nowNs - before.bootNs) / 10_000_000n,
      meter: startMeter(effectiveRates(load, limits), nowNs),
      load,
      limits,
      nics,
      rootfs,
    };
  });
}

/** Ends a life and adds what it consumed to the container's truth. A no-op when it does not run. */
export async function endLife(host: Host, vmid: number): Promise<void> {
  let cpuUsec = 0n;
  await changeRunning(host, vmid, (running) => {
    if (running === undefined) return undefined;
    const consumed = readMeter(running.meter, process.hrtime.bigint());
    cpuUsec = consumed.cpuUsec;
    addToTruth(host.layout, vmid, consumed);
    return undefined;
  });
  await changeBoot(host.layout, (boot) => ({
    ...boot,
    endedCpuUsec: boot.endedCpuUsec + cpuUsec,
  }));
}

/** Changes the record of the host's boot. @returns the record before */
async function changeBoot(layout: HostLayout, change: (boot: HostBoot) => HostBoot): Promise<HostBoot> {
  return withMutex(layout.root, "boot", () => {
    const before = readBoot(layout);
    writeState(join(layout.stateRoot, "boot.json"), change(before));
    return before;
  });
}

/** Gives a running container the limits and interfaces of its configuration (hotplug). */
export async function applyHotplug(host: Host, vmid: number, config: ConfigSection): Promise<void> {
  await changeRunning(host, vmid, (running) => {
    if (running === undefined) return undefined;
    const nowNs = process.hrtime.bigint();
    const consumed = readMeter(running.meter, nowNs);
    const limits = limitsOf(host, config);
    let ifindex = Math.max(0, ...running.nics.map((nic) => nic.ifindex));
    const nics = nicKeys(config).map((key) => {
      const text = config.keys[key] ?? "";
      const old = running.nics.find((nic) => nic.key === key);
      const fresh = newNic(host, key, text, ifindex + 1, nowNs, consumed);
      if (old === undefined || old.mac !== fresh.mac || old.name !== fresh.name) {
        ifindex += 1;
        return fresh;
      }
      const { ifindex: kept, baseIn, baseOut, addressFromNs } = old;
      return { ...fresh, ifindex: kept, baseIn, baseOut, addressFromNs };
    });
    return {
      ...running,
      hostname: config.keys["hostname"] ?? running.hostname,
      meter: changeRates(running.meter, effectiveRates(running.load, limits), nowNs),
      limits,
      nics,
    };
  });
}

/** Sets what a container's guest does, now if it runs and in each later life. */
export async function changeLoad(host: Host, vmid: number, load: GuestLoad): Promise<void> {
  writeState(loadFile(host.layout, vmid), load);
  await changeRunning(host, vmid, (running) => {
    if (running === undefined) return undefined;
    const rates = effectiveRates(load, running.limits);
    return { ...running, load, meter: changeRates(running.meter, rates, process.hrtime.bigint()) };
  });
}

/** What a container consumed in all its lives until now. */
export async function readTruth(host: Host, vmid: number): Promise<Truth> {
  return withMutex(host.layout.root, `running-${vmid}`, () => {
    const past = readState<Truth>(truthFile(host.layout, vmid)) ?? noTruth();
    const running = readRunning(host.layout, vmid);
    if (running === undefined) return past;
    const present = readMeter(running.meter, process.hrtime.bigint());
    return { ...addAmounts(past, present), incarnations: past.incarnations + 1 };
  });
}

/** Changes the record of a life and everything of the kernel's trees that shows it. */
async function changeRunning(
  host: Host,
  vmid: number,
  change: (running: RunningContainer | undefined) => RunningContainer | undefined,
): Promise<void> {
  const { layout } = host;
  await withMutex(layout.root, `running-${vmid}`, () => {
    const before = readRunning(layout, vmid);
    const after = change(before);
    if (before !== undefined && after?.initPid !== before.initPid) withdrawContainer(layout, before);
    if (after === undefined) {
      rmSync(runningFile(layout, vmid), { force: true });
      return;
    }
    writeState(runningFile(layout, vmid), after);
    publishContainer(host, after, process.hrtime.bigint(), "all");
  });
  await publishHost(host);
}

function addToTruth(layout: HostLayout, vmid: number, consumed: Amounts): void {
  const past = readState<Truth>(truthFile(layout, vmid)) ?? noTruth();
  const incarnations = past.incarnations + 1;
  writeState(truthFile(layout, vmid), { ...addAmounts(past, consumed), incarnations });
}

function noTruth(): Truth {
  return { ...zeroAmounts(), incarnations: 0 };
}

function nicKeys(config: ConfigSection): string[] {
  return Object.keys(config.keys)
    .filter((key) => /^net\d+$/u.test(key))
    .toSorted((a, b) => Number(a.slice(3)) - Number(b.slice(3)));
}

function newNic(host: Host, key: string, text: string, ifindex: number, nowNs: bigint, consumed: Amounts): GuestNic {
  const net = parseProperties(text, "name");
  const mac = net.get("hwaddr") ?? "";
  const configured = net.get("ip");
  const dhcp = configured === "dhcp";
  const prefixed = configured === "manual" ? undefined : configured;
  const dhcpNs = BigInt(Math.round(500 * host.settings.speed)) * 1_000_000n;
  return {
    key,
    name: net.get("name") ?? "eth0",
    mac,
    ifindex,
    baseIn: consumed.netInBytes,
    baseOut: consumed.netOutBytes,
    ip: dhcp ? `${dhcpAddress(mac)}/8` : prefixed,
    gateway: dhcp ? "10.0.0.1" : net.get("gw"),
    addressFromNs: dhcp ? nowNs + dhcpNs : nowNs,
  };
}

function limitsOf(host: Host, config: ConfigSection): GuestLimits {
  const { keys } = config;
  return {
    cores: Number(keys["cores"] ?? host.settings.cores),
    cpulimit: Number(keys["cpulimit"] ?? 0),
    cpuunits: Number(keys["cpuunits"] ?? 100),
    memoryMb: Number(keys["memory"] ?? 512),
    swapMb: Number(keys["swap"] ?? 512),
  };
}

function effectiveRates(load: GuestLoad, limits: GuestLimits): Amounts {
  const most = limits.cpulimit > 0 ? Math.min(limits.cores, limits.cpulimit) : limits.cores;
  const granted = Math.min(load.cpuFraction, most);
  return {
    cpuUsec: BigInt(Math.round(granted * 1e6)),
    throttledUsec: BigInt(Math.round((load.cpuFraction - granted) * 1e6)),
    netInBytes: BigInt(Math.round(load.netInBps)),
    netOutBytes: BigInt(Math.round(load.netOutBps)),
    ioReadBytes: BigInt(Math.round(load.ioReadBps)),
    ioWriteBytes: BigInt(Math.round(load.ioWriteBps)),
  };
}

/** Shows a volume's content as the container's mounted root, as lxc does while it prepares one. */
export function mountRootfs(layout: HostLayout, vmid: number, rootfs: string): void {
  const folder = join(layout.lxcRoot, String(vmid));
  mkdirSync(folder, { recursive: true });
  unmountRootfs(layout, vmid);
  rmSync(join(folder, "rootfs"), { recursive: true, force: true });
  symlinkSync(rootfs, join(folder, "rootfs.mounting"));
  renameSync(join(folder, "rootfs.mounting"), join(folder, "rootfs"));
}

/** Ends a mount of `mountRootfs`; the empty folder stays, as after a real umount. */
export function unmountRootfs(layout: HostLayout, vmid: number): void {
  const folder = join(layout.lxcRoot, String(vmid), "rootfs");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
}

/** The machine's own boot id. */
export function machineBootId(): string {
  return readIfPresent("/proc/sys/kernel/random/boot_id")?.trim() ?? "unknown";
}
