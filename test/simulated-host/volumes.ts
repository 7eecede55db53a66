import { cpSync, existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { CommandFailure } from "./failure.ts";
import { hasFault } from "./faults.ts";
import { namesIn, readState, writeState } from "./files.ts";
import type { Host, StorageSettings } from "./layout.ts";
import { printSize } from "./properties.ts";

/** A volume of a container: an image, a thin volume or a dataset. */
export interface Volume {
  volid: string;
  storage: StorageSettings;
  vmid: number;
  sizeBytes: number;
  /** Bytes that the volume really occupies. */
  usedBytes: number;
  /** Volid of the base volume of a linked clone. */
  parent: string | null;
  snapshots: string[];
  /** The folder that stands for the volume. */
  folder: string;
}

/** What `disk.json` beside a volume's `rootfs` says. */
export interface VolumeRecord {
  vmid: number;
  sizeBytes: number;
  usedBytes: number;
  parent: string | null;
  snapshots: string[];
}

/** What an unpacked system occupies, and what a fresh linked clone adds. */
export const SYSTEM_BYTES = 520 * 1024 * 1024;
const LINKED_BYTES = 8 * 1024 * 1024;

/** The storage of a name. @throws CommandFailure when unknown or offline */
export function requireStorage(host: Host, id: string): StorageSettings {
  const storage = host.settings.storages.find((candidate) => candidate.id === id);
  if (storage === undefined) throw new CommandFailure(`storage '${id}' does not exist`);
  if (hasFault(host.layout, "storageOffline", id)) {
    throw new CommandFailure(`storage '${id}' is not online`);
  }
  return storage;
}

/** @throws CommandFailure when the storage may not hold containers */
export function requireRootdir(storage: StorageSettings): void {
  if (!storage.content.split(",").includes("rootdir")) {
    throw new CommandFailure(`storage '${storage.id}' does not support container directories`);
  }
}

/** Makes an empty volume of the next free number. */
export function allocate(host: Host, storage: StorageSettings, vmid: number, sizeBytes: number): Volume {
  return makeVolume(host, storage, nextName(storage, vmid), vmid, sizeBytes, null);
}

/** Makes a volume of an exact name, as `pvesm alloc` can. */
export function allocateNamed(
  host: Host,
  storage: StorageSettings,
  vmid: number,
  name: string,
  sizeBytes: number,
): Volume {
  return makeVolume(host, storage, name, vmid, sizeBytes, null);
}

function makeVolume(
  host: Host,
  storage: StorageSettings,
  name: string,
  vmid: number,
  sizeBytes: number,
  parent: string | null,
): Volume {
  const usedBytes = parent === null ? 0 : LINKED_BYTES;
  requireSpace(host, storage, LINKED_BYTES);
  const folder = volumeFolder(storage, name);
  if (existsSync(folder)) throw new CommandFailure(`disk image '${folder}' already exists`);
  mkdirSync(join(folder, "rootfs"), { recursive: true });
  const record = { vmid, sizeBytes, usedBytes, parent, snapshots: [] };
  writeState(join(folder, "disk.json"), record);
  return { volid: `${storage.id}:${name}`, storage, folder, ...record };
}

/** Opens a volume. @throws CommandFailure when it does not exist */
export function openVolume(host: Host, volid: string): Volume {
  const volume = findVolume(host, volid);
  if (volume === undefined) throw new CommandFailure(`volume '${volid}' does not exist`);
  return volume;
}

/** A volume by its id, or undefined. @throws CommandFailure when its storage is unknown */
export function findVolume(host: Host, volid: string): Volume | undefined {
  const separator = volid.indexOf(":");
  const storage = requireStorage(host, volid.slice(0, separator));
  const folder = volumeFolder(storage, volid.slice(separator + 1));
  const record = readState<VolumeRecord>(join(folder, "disk.json"));
  return record === undefined ? undefined : { volid, storage, folder, ...record };
}

/** All volumes of a storage, by name. */
export function volumesOf(host: Host, storage: StorageSettings): Volume[] {
  const root = imagesFolder(storage);
  const names =
    storage.type === "dir"
      ? namesIn(root).flatMap((vmid) =>
          namesIn(join(root, vmid))
            .filter((name) => name.endsWith(".raw"))
            .map((name) => `${vmid}/${name}`),
        )
      : namesIn(root);
  return names.flatMap((name) => findVolume(host, `${storage.id}:${volname(storage, name)}`) ?? []);
}

/** Writes back what changed of a volume. */
export function saveVolume(volume: Volume): void {
  const { vmid, sizeBytes, usedBytes, parent, snapshots } = volume;
  const record: VolumeRecord = { vmid, sizeBytes, usedBytes, parent, snapshots };
  writeState(join(volume.folder, "disk.json"), record);
}

/** Removes a volume. @returns what the storage prints @throws CommandFailure while clones need it */
export function freeVolume(host: Host, volume: Volume): string[] {
  const { storage, volid } = volume;
  const children = volumesOf(host, storage).filter((other) => other.parent === volid);
  // LVM-thin copies on write below the volumes, so a base may go; a ZFS dataset may not.
  if (storage.type !== "lvmthin" && children.length > 0) {
    throw new CommandFailure(`base volume '${volid}' is still in use by linked clones`);
  }
  rmSync(volume.folder, { recursive: true, force: true, maxRetries: 3 });
  const name = volid.slice(volid.indexOf(":") + 1);
  return storage.type === "lvmthin" ? [`  Logical volume "${name}" successfully removed.`] : [];
}

/** Makes a volume that shares its content with a base volume until either is written. */
export function cloneLinked(host: Host, base: Volume, vmid: number): Volume {
  const { storage } = base;
  requireLinkable(base);
  const name = nextName(storage, vmid);
  const clone = makeVolume(host, storage, name, vmid, base.sizeBytes, base.volid);
  copyContent(base, clone);
  return clone;
}

/** @throws CommandFailure when linked clones of the volume cannot be made */
export function requireLinkable(base: Volume): void {
  const isBase = /(?:^|\/)base(?:vol)?-/u.test(base.volid.slice(base.volid.indexOf(":") + 1));
  if (base.storage.type !== "dir" && isBase) return;
  throw new CommandFailure(`Linked clone feature for '${base.volid}' is not available`);
}

/** Copies a volume's files into another. */
export function copyContent(from: Volume, to: Volume): void {
  cpSync(rootfsOf(from), rootfsOf(to), { recursive: true, force: true, verbatimSymlinks: true });
}

/** Makes a volume a base volume of the same content. @returns its new id */
export function convertToBase(volume: Volume): string {
  const name = volume.volid.slice(volume.volid.indexOf(":") + 1);
  const renamed = name.replace(/(^|\/)vm-/u, "$1base-").replace(/^subvol-/u, "basevol-");
  renameSync(volume.folder, volumeFolder(volume.storage, renamed));
  return `${volume.storage.id}:${renamed}`;
}

/** @throws CommandFailure when the storage has no room for so many bytes more */
export function requireSpace(host: Host, storage: StorageSettings, bytes: number): void {
  const full = hasFault(host.layout, "storageFull", storage.id);
  if (!full && storageUse(host, storage).available >= bytes) return;
  throw new CommandFailure(
    storage.type === "lvmthin"
      ? "Cannot create new thin volume, free space in thin pool pve/data reached threshold."
      : `unable to create image: No space left on device`,
  );
}

/** Bytes of a storage. A full storage shows nothing available. */
export function storageUse(host: Host, storage: StorageSettings): { total: number; used: number; available: number } {
  const total = storage.totalGb * 1024 ** 3;
  if (hasFault(host.layout, "storageFull", storage.id)) return { total, used: total, available: 0 };
  const used = volumesOf(host, storage).reduce((sum, volume) => sum + volume.usedBytes, 0);
  return { total, used, available: Math.max(0, total - used) };
}

/** The folder that stands for a volume's root file system. */
export function rootfsOf(volume: Volume): string {
  return join(volume.folder, "rootfs");
}

/** The value of a `rootfs:` line. */
export function rootfsLine(volume: Volume): string {
  return `${volume.volid},size=${printSize(volume.sizeBytes)}`;
}

function imagesFolder(storage: StorageSettings): string {
  return storage.type === "dir" ? join(storage.path, "images") : storage.path;
}

/** A linked clone on ZFS is named below its base, but is a dataset of its own. */
function volumeFolder(storage: StorageSettings, name: string): string {
  const own = storage.type === "zfspool" ? name.slice(name.lastIndexOf("/") + 1) : name;
  return join(imagesFolder(storage), own);
}

function volname(storage: StorageSettings, name: string): string {
  if (storage.type !== "zfspool") return name;
  const record = readState<VolumeRecord>(join(imagesFolder(storage), name, "disk.json"));
  const parent = record?.parent;
  return typeof parent === "string" ? `${parent.slice(parent.indexOf(":") + 1)}/${name}` : name;
}

function nextName(storage: StorageSettings, vmid: number): string {
  const folder = storage.type === "dir" ? join(imagesFolder(storage), `${vmid}`) : storage.path;
  const pattern = new RegExp(`^(?:vm|base|subvol|basevol)-${vmid}-disk-(\\d+)`, "u");
  const taken = new Set(namesIn(folder).flatMap((name) => pattern.exec(name)?.[1] ?? []));
  let number = 0;
  while (taken.has(`${number}`)) number += 1;
  if (storage.type === "dir") return `${vmid}/vm-${vmid}-disk-${number}.raw`;
  return `${storage.type === "zfspool" ? "subvol" : "vm"}-${vmid}-disk-${number}`;
}
