import { isOn, vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import {
  copyFirewall,
  moveConfig,
  readConfig,
  readMembership,
  removeConfig,
  requireQuorum,
  reserveVmid,
  writeConfig,
} from "../cluster-files.ts";
import { removeConfigLock, setConfigLock, withConfigLock } from "../config-lock.ts";
import { emptyConfig } from "../container-config.ts";
import type { ConfigSection } from "../container-config.ts";
import { CommandFailure, messageOf } from "../failure.ts";
import { pause } from "../pace.ts";
import { parseProperties, printMountPoint, printNet, randomMac } from "../properties.ts";
import { isRunning } from "../running-record.ts";
import { runTask } from "../task.ts";
import type { Task } from "../task-worker.ts";
import {
  allocate,
  cloneLinked,
  copyContent,
  freeVolume,
  openVolume,
  requireLinkable,
  requireRootdir,
  requireStorage,
  saveVolume,
} from "../volumes.ts";
import type { Volume } from "../volumes.ts";

interface CloneOrder {
  sourceId: number;
  newId: number;
  full: boolean;
  /** Storage of a full clone, null for the source's own. */
  storage: string | null;
  source: ConfigSection;
  hostname: string | null;
  description: string | null;
  /** Node that shall own the clone, null for this one. */
  target: string | null;
}

/** `pct clone ID NEWID` */
export async function clone(call: Call): Promise<void> {
  const { host } = call;
  const sourceId = vmidOf(call);
  const newId = Number(call.words["newid"]);
  const { storage, target, snapname } = call.options;
  requireQuorum(host);
  const current = readConfig(host, sourceId);
  const isTemplate = current.keys["template"] === "1";
  const full = call.options["full"] === undefined ? !isTemplate : isOn(call, "full");
  if (!full && storage !== undefined) {
    throw new CommandFailure("parameter 'storage' not allowed for linked clones");
  }
  if (full && snapname === undefined && isRunning(host.layout, sourceId)) {
    throw new CommandFailure("Full clone of a running container is only possible from a snapshot");
  }
  const source = snapname === undefined ? current : current.snapshots.get(snapname);
  if (source === undefined) throw new CommandFailure(`snapshot '${snapname}' does not exist`);
  const away = target !== undefined && target !== host.settings.nodeName;
  if (away) requireReachable(call, target, source);
  if (storage !== undefined) requireRootdir(requireStorage(host, storage));
  await setConfigLock(host, sourceId, "disk");
  try {
    if (!full) requireLinkable(openVolume(host, rootfsVolid(source)));
    const reserved = emptyConfig();
    reserved.keys["lock"] = "create";
    await withConfigLock(host, newId, () => reserveVmid(host, newId, reserved));
  } catch (error) {
    await removeConfigLock(host, sourceId, "disk");
    throw error;
  }
  const order: CloneOrder = {
    sourceId,
    newId,
    full,
    storage: storage ?? null,
    source: { keys: source.keys, lxc: source.lxc },
    hostname: call.options["hostname"] ?? null,
    description: call.options["description"] ?? null,
    target: away ? target : null,
  };
  await runTask(call, "vzclone", `${sourceId}`, order);
}

/** The worker of `pct clone`. */
export async function cloneTask(task: Task<CloneOrder>): Promise<void> {
  const { host, payload } = task;
  const { sourceId, newId } = payload;
  let volume: Volume | undefined;
  try {
    await task.reach("after-reserve");
    task.say(`creating a clone of container ${sourceId} with ID ${newId}`);
    const from = openVolume(host, rootfsVolid(payload.source));
    volume = payload.full ? await copyFull(task, from) : await linkTo(task, from);
    await task.reach("before-config");
    writeConfig(host, newId, { ...emptyConfig(), ...cloneConfig(payload, volume) });
    copyFirewall(host, sourceId, newId);
    if (payload.target !== null) await moveConfig(host, newId, payload.target);
    await task.reach("after-config");
  } catch (error) {
    if (volume !== undefined) freeVolume(host, volume);
    await removeConfig(host, newId);
    await removeConfigLock(host, sourceId, "disk");
    throw new CommandFailure(`clone failed: ${messageOf(error)}`);
  }
  await removeConfigLock(host, sourceId, "disk");
}

async function linkTo(task: Task<CloneOrder>, from: Volume): Promise<Volume> {
  const { host, payload } = task;
  task.say(`create linked clone of mount point rootfs (${from.volid})`);
  await pause(host, 250);
  const volume = cloneLinked(host, from, payload.newId);
  try {
    await task.reach("half-extracted");
  } catch (error) {
    freeVolume(host, volume);
    throw error;
  }
  const name = volume.volid.slice(volume.volid.indexOf(":") + 1);
  if (volume.storage.type === "lvmthin") task.say(`  Logical volume "${name}" created.`);
  return volume;
}

async function copyFull(task: Task<CloneOrder>, from: Volume): Promise<Volume> {
  const { host, payload } = task;
  const storage = payload.storage === null ? from.storage : requireStorage(host, payload.storage);
  requireRootdir(storage);
  task.say(`create full clone of mountpoint rootfs (${from.volid})`);
  const volume = allocate(host, storage, payload.newId, from.sizeBytes);
  try {
    await pause(host, 700);
    await task.reach("half-extracted");
    task.say("Number of files: 21,733 (reg: 16,202, dir: 2,116, link: 3,391, special: 24)");
    task.say(`Total transferred file size: ${from.usedBytes} bytes`);
    copyContent(from, volume);
    await pause(host, 700);
    task.say("total size is 520,093,696  speedup is 1.00");
  } catch (error) {
    freeVolume(host, volume);
    throw error;
  }
  volume.usedBytes = from.usedBytes;
  saveVolume(volume);
  return volume;
}

/** Tags, addresses and limits are copied; MACs are new; the template mark is not inherited. */
function cloneConfig({ source, hostname, description }: CloneOrder, volume: Volume): ConfigSection {
  const keys: Record<string, string> = {};
  for (const [key, value] of Object.entries(source.keys)) {
    if (["template", "lock", "parent", "snaptime"].includes(key)) continue;
    keys[key] = /^net\d+$/u.test(key) ? withNewMac(value) : value;
  }
  const rootfs = parseProperties(source.keys["rootfs"] ?? "", "volume");
  rootfs.set("volume", volume.volid);
  keys["rootfs"] = printMountPoint(rootfs);
  if (hostname !== null) keys["hostname"] = hostname;
  if (description !== null) {
    keys["description"] = description.endsWith("\n") ? description : `${description}\n`;
  }
  return { keys, lxc: source.lxc };
}

function withNewMac(value: string): string {
  const net = parseProperties(value, "name");
  net.set("hwaddr", randomMac());
  return printNet(net);
}

function requireReachable(call: Call, target: string, source: ConfigSection): void {
  const member = readMembership(call.host)?.members[target];
  if (member === undefined) throw new CommandFailure(`no such cluster node '${target}'`);
  const storage = requireStorage(call.host, rootfsVolid(source).split(":")[0] ?? "");
  if (!storage.shared) {
    throw new CommandFailure(`can't clone CT to node '${target}' (CT uses local storage)`);
  }
}

function rootfsVolid(config: ConfigSection): string {
  return parseProperties(config.keys["rootfs"] ?? "", "volume").get("volume") ?? "";
}
