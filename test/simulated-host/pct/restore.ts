import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { isOn, vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { spreadFiles, unpackBackup } from "../backup-archive.ts";
import type { BackupContent } from "../backup-archive.ts";
import {
  firewallPath,
  hasConfig,
  readConfig,
  removeFirewall,
  requireFreeVmid,
  requireQuorum,
  reserveVmid,
  writeConfig,
} from "../cluster-files.ts";
import { requireUnlocked, withConfigLock } from "../config-lock.ts";
import { emptyConfig, formatConfig, parseConfig } from "../container-config.ts";
import type { ContainerConfig } from "../container-config.ts";
import { CommandFailure, messageOf } from "../failure.ts";
import { replaceFile } from "../files.ts";
import type { Host } from "../layout.ts";
import { pause } from "../pace.ts";
import { parseProperties, printNet, randomMac } from "../properties.ts";
import { isRunning } from "../running-record.ts";
import { mountRootfs, unmountRootfs } from "../running.ts";
import { runTask } from "../task.ts";
import type { Task } from "../task-worker.ts";
import { allocate, requireRootdir, requireStorage, rootfsLine, rootfsOf } from "../volumes.ts";
import type { Volume } from "../volumes.ts";
import { configValues } from "./config-values.ts";
import { claimSpace, makeFileSystem, rollBack, rootfsOrder } from "./create.ts";
import type { RootfsOrder } from "./create.ts";
import { freeReferenced } from "./destroy.ts";
import { bringUp } from "./power.ts";

interface RestoreOrder {
  vmid: number;
  /** As it was given, for the messages. */
  archive: string;
  /** Absolute path, or `-` for stdin. */
  path: string;
  rootfs: RootfsOrder | null;
  storage: string | null;
  /** Keys given on the command line; they win over the backup's. */
  keys: Record<string, string>;
  unique: boolean;
  start: boolean;
  /** Text of the file of the container that is written over. */
  overwritten: string | null;
}

/** `pct restore ID ARCHIVE` */
export async function restore(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  requireQuorum(host);
  const overwritten = isOn(call, "force") && hasConfig(host, vmid) ? readConfig(host, vmid) : null;
  if (overwritten === null) requireFreeVmid(host, vmid);
  else {
    requireUnlocked(overwritten);
    if (overwritten.keys["protection"] === "1") {
      throw new CommandFailure(`can't overwrite CT ${vmid} - protection mode enabled`);
    }
    if (isRunning(host.layout, vmid)) throw new CommandFailure("can't overwrite running container");
  }
  const archive = call.words["ostemplate"] ?? "";
  const path = archivePath(host, archive);
  const given = call.options["rootfs"] === undefined ? null : rootfsOrder(call);
  if (path === "-" && given === null) throw new CommandFailure("pipe requires rootfs parameter");
  requireRootdir(requireStorage(host, given?.storage ?? call.options["storage"] ?? "local"));
  await withConfigLock(host, vmid, async () => {
    const reserved = { ...emptyConfig(), keys: { lock: "create" } };
    if (overwritten === null) await reserveVmid(host, vmid, reserved);
    else writeConfig(host, vmid, { ...overwritten, keys: { ...overwritten.keys, lock: "create" } });
  });
  const { rootfs: _, lock: __, ...keys } = configValues(call);
  const order: RestoreOrder = {
    vmid,
    archive,
    path,
    keys,
    overwritten: overwritten === null ? null : formatConfig(overwritten),
    rootfs: given,
    storage: call.options["storage"] ?? null,
    unique: isOn(call, "unique"),
    start: isOn(call, "start"),
  };
  await runTask(call, "vzrestore", `${vmid}`, order);
}

/**
 * The worker of `pct restore`. From the first new disk on there is no way back: the volumes of the container that is
 * written over go before the archive is unpacked, and whatever fails then takes the new ones and the entry with them.
 */
export async function restoreTask(task: Task<RestoreOrder>): Promise<void> {
  const { host, payload } = task;
  const { vmid } = payload;
  await withConfigLock(host, vmid, async () => {
    let volume: Volume | undefined;
    let isTouched = payload.overwritten === null;
    try {
      await task.reach("after-reserve");
      const content = unpackBackup(readFileSync(payload.path === "-" ? 0 : payload.path));
      task.say(`recovering backed-up configuration from '${payload.archive}'`);
      isTouched = true;
      volume = allocateFor(host, payload, content);
      await makeFileSystem(task, volume);
      if (payload.overwritten !== null) freeOverwritten(task, parseConfig(payload.overwritten));
      mountRootfs(host.layout, vmid, rootfsOf(volume));
      task.say(`restoring '${payload.archive}' now..`);
      task.say(`extracting archive '${payload.path}'`);
      await pause(host, 300);
      await task.reach("half-extracted");
      spreadFiles(rootfsOf(volume), content.files);
      await pause(host, 300);
      claimSpace(task, volume);
      task.say(`Total bytes read: ${content.usedBytes}`);
      task.say("merging backed-up and given configuration..");
      unmountRootfs(host.layout, vmid);
      await task.reach("before-config");
      const config = merged(payload, content, volume);
      writeConfig(host, vmid, config);
      if (content.firewall !== null) replaceFile(firewallPath(host, vmid), content.firewall);
      if (payload.start) await bringUp(task, vmid, config);
    } catch (error) {
      if (isTouched) {
        await rollBack(host, vmid, volume);
        removeFirewall(host, vmid);
      } else writeConfig(host, vmid, parseConfig(payload.overwritten ?? ""));
      const failure = `unable to restore CT ${vmid} - ${messageOf(error)}`;
      throw new CommandFailure(failure, error instanceof CommandFailure ? error.exitCode : 255);
    }
  });
}

function allocateFor(host: Host, order: RestoreOrder, content: BackupContent): Volume {
  const storage = order.rootfs?.storage ?? order.storage ?? "local";
  const sizeBytes = order.rootfs?.sizeBytes ?? content.sizeBytes;
  return allocate(host, requireStorage(host, storage), order.vmid, sizeBytes);
}

/** Its entry holds nothing but the lock afterwards: nobody can tell whose it is. */
function freeOverwritten(task: Task<RestoreOrder>, overwritten: ContainerConfig): void {
  freeReferenced(task, overwritten);
  writeConfig(task.host, task.payload.vmid, { ...emptyConfig(), keys: { lock: "create" } });
}

/** The MAC addresses of the backup stay unless `--unique 1` asks for new ones. */
function merged(order: RestoreOrder, content: BackupContent, volume: Volume): ContainerConfig {
  const backedUp = parseConfig(content.config);
  const keys: Record<string, string> = {};
  for (const [key, value] of Object.entries(backedUp.keys)) {
    if (["lock", "template", "parent", "snaptime"].includes(key)) continue;
    if (/^(?:mp|unused)\d+$/u.test(key)) continue;
    keys[key] = order.unique && /^net\d+$/u.test(key) ? withNewMac(value) : value;
  }
  Object.assign(keys, order.keys, { rootfs: rootfsLine(volume) });
  return { ...emptyConfig(), keys, lxc: backedUp.lxc };
}

function withNewMac(value: string): string {
  const net = parseProperties(value, "name");
  net.set("hwaddr", randomMac());
  return printNet(net);
}

function archivePath(host: Host, archive: string): string {
  if (archive === "-") return archive;
  if (archive.startsWith("/")) {
    if (existsSync(archive)) return archive;
    throw new CommandFailure(`can't find file '${archive}'`);
  }
  const separator = archive.indexOf(":");
  const storage = requireStorage(host, archive.slice(0, separator));
  const name = archive.slice(separator + 1).replace(/^backup\//u, "");
  const path = join(storage.path, "dump", name);
  if (existsSync(path)) return path;
  throw new CommandFailure(`volume '${archive}' does not exist`);
}
