import { existsSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Call, Command } from "./call.ts";
import { CommandFailure } from "./failure.ts";
import { hasFault } from "./faults.ts";
import { namesIn } from "./files.ts";
import type { Host, StorageSettings } from "./layout.ts";
import { flag, storageId, text, vmid } from "./option-schema.ts";
import { parseSize } from "./properties.ts";
import { printLine } from "./terminal.ts";
import { allocateNamed, freeVolume, openVolume, requireStorage, storageUse, volumesOf } from "./volumes.ts";

interface ListedVolume {
  volid: string;
  format: string;
  type: string;
  size: number;
  vmid: number | undefined;
}

/** Every subcommand of `pvesm` that this host has. */
export const PVESM_COMMANDS: Record<string, Command> = {
  status: {
    words: [],
    options: { content: text, enabled: flag, storage: storageId, target: text },
    run: status,
  },
  list: { words: [["storage", storageId]], options: { content: text, vmid }, run: list },
  alloc: {
    words: [
      ["storage", storageId],
      ["vmid", vmid],
      ["filename", text],
      ["size", text],
    ],
    options: { format: text },
    run: alloc,
  },
  free: { words: [["volume", text]], options: { delay: text, storage: storageId }, run: free },
  path: { words: [["volume", text]], options: {}, run: path },
};

function status(call: Call): void {
  const { host } = call;
  const { storage: only, content } = call.options;
  if (only !== undefined && !host.settings.storages.some(({ id }) => id === only)) {
    throw new CommandFailure(`storage '${only}' does not exist`);
  }
  const shown = host.settings.storages
    .filter(({ id }) => only === undefined || id === only)
    .filter((storage) => content === undefined || storage.content.split(",").includes(content))
    .toSorted((a, b) => (a.id < b.id ? -1 : 1));
  const width = Math.max(4, ...shown.map(({ id }) => id.length));
  const row = (cells: string[]): string => {
    const [name = "", ...rest] = cells;
    const widths = [10, 10, 15, 15, 15, 8];
    return [name.padEnd(width), ...rest.map((cell, index) => cell.padStart(widths[index] ?? 0))].join(" ");
  };
  printLine(row(["Name", "Type", "Status", "Total", "Used", "Available", "%"]));
  for (const storage of shown) {
    const offline = hasFault(host.layout, "storageOffline", storage.id);
    const { total, used, available } = offline ? { total: 0, used: 0, available: 0 } : storageUse(host, storage);
    const share = total === 0 ? 0 : (used * 100) / total;
    const sizes = [total, used, available].map((bytes) => `${Math.floor(bytes / 1024)}`);
    const state = offline ? "inactive" : "active";
    printLine(row([storage.id, storage.type, state, ...sizes, `${share.toFixed(2)}%`]));
  }
}

function list(call: Call): void {
  const storage = requireStorage(call.host, call.words["storage"] ?? "");
  const { content, vmid: owner } = call.options;
  const all = [...listVolumes(call.host, storage), ...listFiles(storage)]
    .filter(({ type }) => content === undefined || type === content)
    .filter((volume) => owner === undefined || volume.vmid === Number(owner));
  const width = Math.max(5, ...all.map(({ volid }) => volid.length));
  const row = (volid: string, format: string, type: string, size: string, id: string): string =>
    `${volid.padEnd(width)} ${format.padEnd(7)} ${type.padEnd(9)} ${size.padStart(13)} ${id}`;
  printLine(row("Volid", "Format", "Type", "Size", "VMID"));
  for (const volume of all) {
    const id = volume.vmid === undefined ? "" : `${volume.vmid}`;
    printLine(row(volume.volid, volume.format, volume.type, `${volume.size}`, id));
  }
}

function listVolumes(host: Host, storage: StorageSettings): ListedVolume[] {
  const format = storage.type === "zfspool" ? "subvol" : "raw";
  return volumesOf(host, storage).map((volume) => ({
    volid: volume.volid,
    format,
    type: "rootdir",
    size: volume.sizeBytes,
    vmid: volume.vmid,
  }));
}

function listFiles(storage: StorageSettings): ListedVolume[] {
  if (storage.type !== "dir") return [];
  const of = (folder: string, type: string, pattern: RegExp): ListedVolume[] =>
    namesIn(join(storage.path, folder)).flatMap((name) => {
      const [, owner, format] = pattern.exec(name) ?? [];
      if (format === undefined) return [];
      const { size } = statSync(join(storage.path, folder, name));
      const id = owner === undefined ? undefined : Number(owner);
      return [{ volid: `${storage.id}:${type}/${name}`, format, type, size, vmid: id }];
    });
  return [
    ...of("dump", "backup", /^vzdump-lxc-(\d+)-.*?\.(tar(?:\.zst|\.gz|\.lzo)?)$/u),
    ...of("template/cache", "vztmpl", /^()?.*\.t(ar(?:\.\w+)?)$/u).map((file) => ({
      ...file,
      format: `t${file.format.replace("ar.", "").slice(0, 1)}z`.replace("tzz", "tzst"),
      vmid: undefined,
    })),
  ];
}

function alloc(call: Call): void {
  const { storage = "", vmid: owner = "", filename = "", size = "" } = call.words;
  // A bare number is kilobytes here, unlike everywhere else.
  const bytes = /^\d+$/u.test(size) ? Number(size) * 1024 : parseSize(size);
  const where = requireStorage(call.host, storage);
  const name = where.type === "dir" ? `${owner}/${filename}` : filename;
  const { volid } = allocateNamed(call.host, where, Number(owner), name, bytes);
  printLine(`successfully created '${volid}'`);
}

function free(call: Call): void {
  const volid = call.words["volume"] ?? "";
  if (volid.includes(":backup/")) {
    freeBackup(filePath(call.host, volid), volid);
    return;
  }
  for (const line of freeVolume(call.host, openVolume(call.host, volid))) printLine(line);
  printLine(`Removed volume '${volid}'`);
}

/** A backup goes with its notes and its log. */
function freeBackup(path: string, volid: string): void {
  if (existsSync(`${path}.protected`)) throw new CommandFailure(`cannot remove protected volume '${volid}'`);
  if (!existsSync(path)) throw new CommandFailure(`unlink '${path}' failed - No such file or directory`, 2);
  for (const file of [path, `${path}.notes`, path.replace(/\.tar.*$/u, ".log")]) rmSync(file, { force: true });
  printLine(`Removed volume '${volid}'`);
}

function path(call: Call): void {
  printLine(filePath(call.host, call.words["volume"] ?? ""));
}

/** Where a volume lies; says nothing about whether it does. */
function filePath(host: Host, volid: string): string {
  const [, id = "", type, name = ""] = /^([^:]+):(?:(backup|vztmpl)\/)?(.*)$/u.exec(volid) ?? [];
  const storage = requireStorage(host, id);
  if (type === "backup") return join(storage.path, "dump", name);
  if (type === "vztmpl") return join(storage.path, "template/cache", name);
  return openVolume(host, volid).folder;
}
