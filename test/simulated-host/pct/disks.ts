import { isOn, vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { ownVmids, readConfig, readConfigText, writeConfig } from "../cluster-files.ts";
import { removeConfigLock, requireUnlocked, setConfigLock, withConfigLock } from "../config-lock.ts";
import { configDigest } from "../container-config.ts";
import type { ContainerConfig } from "../container-config.ts";
import { CommandFailure } from "../failure.ts";
import type { Host } from "../layout.ts";
import { pause } from "../pace.ts";
import { parseProperties, parseSize, printMountPoint, printSize } from "../properties.ts";
import { isRunning } from "../running-record.ts";
import { runTask } from "../task.ts";
import type { Task } from "../task-worker.ts";
import { printLine } from "../terminal.ts";
import {
  allocate,
  convertToBase,
  copyContent,
  freeVolume,
  openVolume,
  requireRootdir,
  requireSpace,
  requireStorage,
  saveVolume,
  volumesOf,
} from "../volumes.ts";
import type { Volume } from "../volumes.ts";

interface DiskOrder {
  vmid: number;
  disk: string;
  sizeBytes: number;
}

interface MoveOrder {
  vmid: number;
  disk: string;
  storage: string;
  deleteSource: boolean;
}

/** `pct resize ID DISK SIZE`: the worker's failure does not reach the exit code. */
export async function resize(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  const { disk = "", size = "" } = call.words;
  const { digest } = call.options;
  await withConfigLock(host, vmid, async () => {
    const config = readConfig(host, vmid);
    if (digest !== undefined && digest !== configDigest(readConfigText(host, vmid))) {
      throw new CommandFailure("detected modified configuration - file changed by other user? Try again.");
    }
    requireUnlocked(config);
    const volume = openVolume(host, volidOf(config, disk));
    const grown = size.startsWith("+") ? volume.sizeBytes + parseSize(size.slice(1)) : parseSize(size);
    // Sizes are whole blocks of 512 bytes.
    const sizeBytes = Math.ceil(grown / 512) * 512;
    if (sizeBytes < volume.sizeBytes) throw new CommandFailure("unable to shrink disk size");
    if (sizeBytes === volume.sizeBytes) throw new CommandFailure("disk is already at specified size");
    const order: DiskOrder = { vmid, disk, sizeBytes };
    await runTask(call, "resize", `${vmid}`, order, { checked: false });
  });
}

/** The worker of `pct resize`, which runs under the lock that its `pct` holds. */
export async function resizeTask(task: Task<DiskOrder>): Promise<void> {
  const { host, payload } = task;
  const config = readConfig(host, payload.vmid);
  const volume = openVolume(host, volidOf(config, payload.disk));
  const running = isRunning(host.layout, payload.vmid);
  await task.reach("before-resize");
  growVolume(task, volume, payload.sizeBytes);
  const mountPoint = parseProperties(config.keys[payload.disk] ?? "", "volume");
  mountPoint.set("size", printSize(payload.sizeBytes));
  const keys = { ...config.keys, [payload.disk]: printMountPoint(mountPoint) };
  writeConfig(host, payload.vmid, { ...config, keys });
  await task.reach("after-config");
  if (volume.storage.type === "zfspool") return;
  if (task.effects.some(({ kind }) => kind === "grow-failure")) {
    task.say("Failed to update the container's filesystem: command 'resize2fs' failed: exit code 1");
    return;
  }
  if (!running) {
    task.say("e2fsck 1.47.2 (1-Jan-2025)");
    // The check waits for the multi-mount protection's interval, and so does the growing.
    await pause(host, 22_000);
  }
  task.say("resize2fs 1.47.2 (1-Jan-2025)");
  task.say(`The filesystem on ${volume.volid} is now ${payload.sizeBytes / 4096} (4k) blocks long.`);
}

function growVolume(task: Task, volume: Volume, sizeBytes: number): void {
  try {
    requireSpace(task.host, volume.storage, 1);
  } catch {
    const grow = volume.storage.type === "dir" ? "/usr/bin/qemu-img resize" : "/sbin/lvextend";
    throw new CommandFailure(`command '${grow} ${volume.volid} ${sizeBytes}' failed: exit code 1`);
  }
  volume.sizeBytes = sizeBytes;
  saveVolume(volume);
  const name = volume.volid.slice(volume.volid.indexOf(":") + 1);
  task.say(volume.storage.type === "lvmthin" ? `  Logical volume pve/${name} successfully resized.` : "Image resized.");
}

/** `pct template ID`: the worker's failure does not reach the exit code. */
export async function template(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  const config = readConfig(host, vmid);
  requireUnlocked(config);
  if (config.keys["template"] === "1") {
    throw new CommandFailure("you can't convert a template to a template");
  }
  if (isRunning(host.layout, vmid)) {
    throw new CommandFailure("you can't convert a CT to template if the CT is running");
  }
  await runTask(call, "vztemplate", `${vmid}`, { vmid }, { checked: false });
}

/** The worker of `pct template`. */
export async function templateTask(task: Task<{ vmid: number }>): Promise<void> {
  const { host, payload } = task;
  await withConfigLock(host, payload.vmid, async () => {
    const config = readConfig(host, payload.vmid);
    const volume = openVolume(host, volidOf(config, "rootfs"));
    await pause(host, 100);
    const rootfs = parseProperties(config.keys["rootfs"] ?? "", "volume");
    rootfs.set("volume", convertToBase(volume));
    const keys = { ...config.keys, rootfs: printMountPoint(rootfs), template: "1" };
    writeConfig(host, payload.vmid, { ...config, keys });
  });
}

/** `pct move-volume ID DISK STORAGE` */
export async function moveVolume(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  const { volume: disk = "", storage = "" } = call.words;
  requireRootdir(requireStorage(host, storage));
  volidOf(readConfig(host, vmid), disk);
  if (isRunning(host.layout, vmid)) {
    throw new CommandFailure("cannot move volumes of a running container");
  }
  await setConfigLock(host, vmid, "disk");
  const order: MoveOrder = { vmid, disk, storage, deleteSource: isOn(call, "delete") };
  await runTask(call, "move_volume", `${vmid}`, order);
}

/** The worker of `pct move-volume`. */
export async function moveVolumeTask(task: Task<MoveOrder>): Promise<void> {
  const { host, payload } = task;
  const { vmid, disk } = payload;
  try {
    const config = readConfig(host, vmid);
    const from = openVolume(host, volidOf(config, disk));
    const to = allocate(host, requireStorage(host, payload.storage), vmid, from.sizeBytes);
    await pause(host, 700);
    await task.reach("half-extracted");
    copyContent(from, to);
    to.usedBytes = from.usedBytes;
    saveVolume(to);
    task.say("total size is 520,093,696  speedup is 1.00");
    const mountPoint = parseProperties(config.keys[disk] ?? "", "volume");
    mountPoint.set("volume", to.volid);
    const keys: Record<string, string> = { ...config.keys, [disk]: printMountPoint(mountPoint) };
    if (!payload.deleteSource) keys[nextUnused(keys)] = from.volid;
    writeConfig(host, vmid, { ...config, keys });
    if (payload.deleteSource) for (const line of freeVolume(host, from)) task.say(line);
  } finally {
    await removeConfigLock(host, vmid, "disk");
  }
}

/** `pct rescan [--vmid ID]`: sizes are brought up to date, volumes nobody names become `unusedN`. */
export async function rescan(call: Call): Promise<void> {
  const { host } = call;
  const only = call.options["vmid"];
  printLine("rescan volumes...");
  for (const vmid of only === undefined ? ownVmids(host) : [Number(only)]) {
    await withConfigLock(host, vmid, () => rescanOne(host, vmid));
  }
}

function rescanOne(host: Host, vmid: number): void {
  const config = readConfig(host, vmid);
  const keys = { ...config.keys };
  const named = new Set(
    Object.entries(keys)
      .filter(([key]) => /^(?:rootfs|mp\d+|unused\d+)$/u.test(key))
      .map(([, value]) => parseProperties(value, "volume").get("volume")),
  );
  for (const storage of host.settings.storages) {
    for (const volume of volumesOf(host, storage)) {
      if (volume.vmid === vmid && !named.has(volume.volid)) keys[nextUnused(keys)] = volume.volid;
    }
  }
  const added = Object.keys(keys).some((key) => !(key in config.keys));
  if (added) writeConfig(host, vmid, { ...config, keys });
}

function nextUnused(keys: Record<string, string>): string {
  let number = 0;
  while (`unused${number}` in keys) number += 1;
  return `unused${number}`;
}

/** The volume of a disk. @throws CommandFailure for a disk that the container does not have */
export function volidOf(config: ContainerConfig, disk: string): string {
  const volid = parseProperties(config.keys[disk] ?? "", "volume").get("volume");
  if (volid !== undefined && volid !== "") return volid;
  throw new CommandFailure("format error\nvolume: property is missing and it is not optional");
}
