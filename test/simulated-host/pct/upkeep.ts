import { join } from "node:path";
import { vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { readConfig } from "../cluster-files.ts";
import { removeConfigLock, setConfigLock } from "../config-lock.ts";
import type { ContainerConfig } from "../container-config.ts";
import { CommandFailure } from "../failure.ts";
import type { Host } from "../layout.ts";
import { isRunning } from "../running-record.ts";
import { mountRootfs, unmountRootfs } from "../running.ts";
import { printLine } from "../terminal.ts";
import { openVolume, rootfsOf } from "../volumes.ts";
import type { Volume } from "../volumes.ts";
import { volidOf } from "./disks.ts";

/** `pct unlock ID` */
export async function unlock(call: Call): Promise<void> {
  await removeConfigLock(call.host, vmidOf(call));
}

/** `pct df ID`: mounts a stopped container for the moment, under the lock `mounted`. */
export async function df(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  const config = readConfig(host, vmid);
  const volume = openVolume(host, volidOf(config, "rootfs"));
  const stopped = !isRunning(host.layout, vmid);
  if (stopped) await setConfigLock(host, vmid, "mounted");
  const used = volume.usedBytes;
  const columns = [volume.sizeBytes, used, volume.sizeBytes - used].map(human);
  printLine("MP     Volume                        Size  Used Avail Use% Path");
  printLine(
    `rootfs ${volume.volid.padEnd(28)} ${columns.map((column) => column.padStart(5)).join(" ")} ${(used / volume.sizeBytes).toFixed(2).padStart(4)} /`,
  );
  if (stopped) await removeConfigLock(host, vmid, "mounted");
}

/** `pct mount ID` */
export async function mount(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  let volume: Volume | undefined;
  await setConfigLock(host, vmid, "mounted", (config) => {
    if (isRunning(host.layout, vmid)) throw new CommandFailure("container is running");
    volume = rootVolume(host, config);
  });
  if (volume !== undefined) mountRootfs(host.layout, vmid, rootfsOf(volume));
  printLine(`mounted CT ${vmid} in '${join(host.layout.lxcRoot, `${vmid}`, "rootfs")}'`);
}

/** `pct unmount ID` */
export async function unmount(call: Call): Promise<void> {
  const vmid = vmidOf(call);
  await removeConfigLock(call.host, vmid, "mounted");
  unmountRootfs(call.host.layout, vmid);
}

/** `pct fstrim ID` */
export async function fstrim(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  let volume: Volume | undefined;
  await setConfigLock(host, vmid, "fstrim", (config) => {
    volume = rootVolume(host, config);
  });
  const free = volume === undefined ? 0 : volume.sizeBytes - volume.usedBytes;
  printLine(`/var/lib/lxc/${vmid}/rootfs/: ${human(free)} (${free} bytes) trimmed`);
  await removeConfigLock(host, vmid, "fstrim");
}

function rootVolume(host: Host, config: ContainerConfig): Volume {
  return openVolume(host, volidOf(config, "rootfs"));
}

function human(bytes: number): string {
  return bytes >= 2 ** 30 ? `${(bytes / 2 ** 30).toFixed(1)}G` : `${(bytes / 2 ** 20).toFixed(1)}M`;
}
