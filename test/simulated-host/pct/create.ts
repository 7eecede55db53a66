import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isOn, vmidOf } from "../call.ts";
import type { Call } from "../call.ts";
import { removeConfig, requireFreeVmid, requireQuorum, reserveVmid, writeConfig } from "../cluster-files.ts";
import { withConfigLock } from "../config-lock.ts";
import { emptyConfig } from "../container-config.ts";
import { CommandFailure, messageOf } from "../failure.ts";
import { unpackSystem } from "../guest-system.ts";
import type { Host, StorageSettings } from "../layout.ts";
import { pause } from "../pace.ts";
import { parseProperties, parseSize } from "../properties.ts";
import { mountRootfs, unmountRootfs } from "../running.ts";
import { runTask } from "../task.ts";
import type { Task } from "../task-worker.ts";
import {
  SYSTEM_BYTES,
  allocate,
  freeVolume,
  requireRootdir,
  requireSpace,
  requireStorage,
  rootfsLine,
  rootfsOf,
  saveVolume,
} from "../volumes.ts";
import type { Volume } from "../volumes.ts";
import { configValues, withDefaults } from "./config-values.ts";
import { bringUp } from "./power.ts";

/** What a new root file system shall be. */
export interface RootfsOrder {
  storage: string;
  sizeBytes: number;
}

interface CreateOrder {
  vmid: number;
  archive: string;
  rootfs: RootfsOrder;
  keys: Record<string, string>;
  publicKeys: string | null;
  start: boolean;
}

/** Default size of a root file system: 4 GiB. */
const DEFAULT_ROOTFS_GIB = 4;

/** `pct create ID ARCHIVE` */
export async function create(call: Call): Promise<void> {
  const { host } = call;
  const vmid = vmidOf(call);
  requireQuorum(host);
  requireFreeVmid(host, vmid);
  const rootfs = rootfsOrder(call);
  requireRootdir(requireStorage(host, rootfs.storage));
  const keysFile = call.options["ssh-public-keys"];
  const reserved = emptyConfig();
  reserved.keys["lock"] = "create";
  await withConfigLock(host, vmid, () => reserveVmid(host, vmid, reserved));
  const order: CreateOrder = {
    vmid,
    archive: call.words["ostemplate"] ?? "",
    rootfs,
    keys: withDefaults(call, vmid, configValues(call)),
    publicKeys: keysFile === undefined ? null : readFileSync(keysFile, "utf8"),
    start: isOn(call, "start"),
  };
  await runTask(call, "vzcreate", `${vmid}`, order);
}

/** The worker of `pct create`. */
export async function createTask(task: Task<CreateOrder>): Promise<void> {
  const { host, payload } = task;
  const { vmid, keys, rootfs } = payload;
  await withConfigLock(host, vmid, async () => {
    let volume: Volume | undefined;
    try {
      await task.reach("after-reserve");
      await pause(host, 100);
      volume = allocate(host, requireStorage(host, rootfs.storage), vmid, rootfs.sizeBytes);
      await makeFileSystem(task, volume);
      mountRootfs(host.layout, vmid, rootfsOf(volume));
      await unpack(task, volume, payload.archive);
      if (payload.publicKeys !== null) writePublicKeys(volume, payload.publicKeys);
      await pause(host, 100);
      unmountRootfs(host.layout, vmid);
      await task.reach("before-config");
      const config = { ...emptyConfig(), keys: { ...keys, rootfs: rootfsLine(volume) } };
      writeConfig(host, vmid, config);
      if (payload.start) await bringUp(task, vmid, config);
    } catch (error) {
      await rollBack(host, vmid, volume);
      const failure = `unable to create CT ${vmid} - ${messageOf(error)}`;
      throw new CommandFailure(failure, error instanceof CommandFailure ? error.exitCode : 255);
    }
  });
}

/** Takes a half-made container away again; only the folder of its mount stays. */
export async function rollBack(host: Host, vmid: number, volume: Volume | undefined): Promise<void> {
  unmountRootfs(host.layout, vmid);
  if (volume !== undefined) freeVolume(host, volume);
  await removeConfig(host, vmid);
}

/** Says what a storage says of a new volume, and formats it. */
export async function makeFileSystem(task: Task, volume: Volume): Promise<void> {
  const { storage, sizeBytes, volid } = volume;
  const name = volid.slice(volid.indexOf(":") + 1);
  if (storage.type === "lvmthin") task.say(`  Logical volume "${name}" created.`);
  if (storage.type === "dir") {
    task.say(`Formatting '${volume.folder}', fmt=raw size=${sizeBytes} preallocation=off`);
  }
  if (storage.type === "zfspool") return;
  const blocks = Math.floor(sizeBytes / 4096);
  task.say(`Creating filesystem with ${blocks} 4k blocks and ${Math.ceil(blocks / 4)} inodes`);
  task.say("Filesystem UUID: 3f6f8d0c-6f0e-4f43-9d1e-6f7f6a5f2b11");
  await pause(task.host, 100);
}

/** Unpacks a template archive into a volume. */
async function unpack(task: Task, volume: Volume, archive: string): Promise<void> {
  const { host } = task;
  const path = templatePath(host, archive);
  task.say(`extracting archive '${path}'`);
  unpackSystem(rootfsOf(volume));
  await pause(host, 250);
  await task.reach("half-extracted");
  await pause(host, 250);
  claimSpace(task, volume);
  task.say(`Total bytes read: ${SYSTEM_BYTES} (${Math.round(SYSTEM_BYTES / 2 ** 20)}MiB, 410MiB/s)`);
  task.say("Detected container architecture: amd64");
}

/** Accounts for the bytes that an unpacked system takes. @throws CommandFailure as tar would fail */
export function claimSpace(task: Task, volume: Volume): void {
  try {
    requireSpace(task.host, volume.storage, SYSTEM_BYTES);
    if (volume.sizeBytes < SYSTEM_BYTES / 8) throw new CommandFailure("file system too small");
  } catch {
    task.say("tar: ./usr/lib: Cannot write: No space left on device");
    task.say("tar: Exiting with failure status due to previous errors");
    throw new CommandFailure("command 'tar xpf - --zstd --totals' failed: exit code 2");
  }
  volume.usedBytes = SYSTEM_BYTES;
  saveVolume(volume);
}

/** `--rootfs STORE:GIB`, or a size with `--storage`, or 4 GiB on `local`. */
export function rootfsOrder(call: Call, defaultBytes?: number): RootfsOrder {
  const given = call.options["rootfs"];
  const storage = call.options["storage"] ?? "local";
  const standard = defaultBytes ?? DEFAULT_ROOTFS_GIB * 1024 ** 3;
  if (given === undefined) return { storage, sizeBytes: standard };
  const properties = parseProperties(given, "volume");
  const [, id, gib] = /^(?:([^:]+):)?(\d+(?:\.\d+)?)$/u.exec(properties.get("volume") ?? "") ?? [];
  if (gib === undefined) throw new CommandFailure(`unable to parse volume ID '${given}'`);
  const sizeBytes = parseSize(`${gib}G`);
  return { storage: id ?? storage, sizeBytes: sizeBytes === 0 ? standard : sizeBytes };
}

function templatePath(host: Host, archive: string): string {
  if (archive.startsWith("/")) {
    if (existsSync(archive)) return archive;
    throw new CommandFailure(`can't find file '${archive}'`);
  }
  const separator = archive.indexOf(":");
  const storage: StorageSettings = requireStorage(host, archive.slice(0, separator));
  const name = archive.slice(separator + 1).replace(/^vztmpl\//u, "");
  const path = join(storage.path, "template/cache", name);
  if (existsSync(path)) return path;
  throw new CommandFailure(`volume '${archive}' does not exist`);
}

function writePublicKeys(volume: Volume, keys: string): void {
  const folder = join(rootfsOf(volume), "root/.ssh");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileSync(join(folder, "authorized_keys"), keys, { mode: 0o600 });
}
