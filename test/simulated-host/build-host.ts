import { randomUUID } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { commonRoot, findVmid, joinCluster, readMembership, reserveVmid, writeMembers } from "./cluster-files.ts";
import { emptyConfig } from "./container-config.ts";
import { replaceFile, writeState } from "./files.ts";
import { unpackSystem } from "./guest-system.ts";
import { openHost } from "./layout.ts";
import type { Host, HostLayout, HostSettings, StorageSettings, StorageType } from "./layout.ts";
import { simulatedPrograms } from "./programs.ts";
import { randomMac } from "./properties.ts";
import { publishHost } from "./publish.ts";
import type { HostBoot } from "./running-record.ts";
import { machineBootId } from "./running.ts";
import { SYSTEM_BYTES, allocate, convertToBase, openVolume, rootfsLine, rootfsOf, saveVolume } from "./volumes.ts";

/** What a host shall be; everything but the root and the name has a default. */
export interface SimulatedHostOptions {
  /** Absolute folder of the host's whole tree. */
  root: string;
  nodeName: string;
  cores?: number;
  memoryMb?: number;
  storages?: StorageOptions[];
  /** Template container for clones; 9000, or the next free id above it in a cluster. */
  templateVmid?: number;
  /** Names of template archives on the first storage that holds `vztmpl`. */
  templateArchives?: string[];
  /** 1 is the timing of a real host, 0 waits for nothing, 0.1 by default. */
  speed?: number;
  /** Folder that the hosts of one cluster share. */
  clusterRoot?: string;
  /** Bridges that exist, `vmbr0` by default. */
  bridges?: string[];
}

/** A storage of a host. */
export interface StorageOptions {
  id: string;
  type: StorageType;
  totalGb: number;
  /** On a cluster's shared folder, unless `path` says where. */
  shared?: boolean;
  content?: string;
  /** Absolute folder of the volumes, for a storage that hosts without a cluster both see. */
  path?: string;
}

const DEFAULT_ARCHIVE = "debian-13-standard_13.1-2_amd64.tar.zst";
const TEMPLATE_DISK_BYTES = 2 * 1024 ** 3;
/** Init pids begin above every pid that this machine can have, as both share one `/proc`. */
const FIRST_PID = 5_000_000;
const PROGRAMS = ["pct", "pvesm", "vzdump", "pveversion", "umount", "zstd", "lxc-stop"];

/** Makes a host's tree. A root that already holds a host keeps its settings and its containers. */
export async function buildHost(options: SimulatedHostOptions, layout: HostLayout): Promise<Host> {
  const isNew = !existsSync(join(layout.stateRoot, "settings.json"));
  if (isNew) writeState(join(layout.stateRoot, "settings.json"), settingsOf(options));
  const host = openHost(layout.root);
  await writeExecutables(layout);
  if (!isNew) return host;
  makeTree(host);
  writeBoot(layout);
  await joinCluster(host);
  makePveTree(host);
  writeMembers(host);
  writeTemplateArchives(host, options.templateArchives ?? [DEFAULT_ARCHIVE]);
  await makeTemplate(host, options.templateVmid);
  await publishHost(host);
  return host;
}

/** Begins a boot of the host: a new boot id, and times that count from now. */
export function writeBoot(layout: HostLayout): void {
  const boot: HostBoot = {
    bootId: randomUUID(),
    // A host that booted at this very instant would divide by its uptime of zero.
    bootNs: process.hrtime.bigint() - 20_000_000_000n,
    bootEpochMs: Date.now() - 20_000,
    machineBootId: machineBootId(),
    nextPid: FIRST_PID,
    nextIfindex: 10,
    endedCpuUsec: 0n,
  };
  writeState(join(layout.stateRoot, "boot.json"), boot);
}

function settingsOf(options: SimulatedHostOptions): HostSettings {
  const storages = options.storages ?? [
    { id: "local", type: "dir", totalGb: 100 },
    { id: "local-lvm", type: "lvmthin", totalGb: 500 },
  ];
  return {
    nodeName: options.nodeName,
    cores: options.cores ?? 8,
    memoryMb: options.memoryMb ?? 32_768,
    storages: storages.map((storage) => storageSettings(options, storage)),
    templateVmid: options.templateVmid ?? 9000,
    bridges: options.bridges ?? ["vmbr0"],
    speed: options.speed ?? 0.1,
    clusterRoot: options.clusterRoot ?? null,
  };
}

function storageSettings(options: SimulatedHostOptions, storage: StorageOptions): StorageSettings {
  const shared = storage.shared ?? false;
  const base = shared ? (options.clusterRoot ?? options.root) : options.root;
  const files = storage.type === "dir" ? ",vztmpl,backup,snippets" : "";
  return {
    id: storage.id,
    type: storage.type,
    totalGb: storage.totalGb,
    shared,
    content: storage.content ?? `rootdir,images${files}`,
    path: storage.path ?? join(base, "storage", storage.id),
  };
}

function makeTree({ layout, settings }: Host): void {
  const folders = [
    layout.cgroupRoot,
    join(layout.cgroupRoot, "lxc"),
    join(layout.procRoot, "net"),
    layout.netClassRoot,
    join(layout.taskLogRoot, "tasks"),
    join(layout.lockRoot, "lxc"),
    layout.lxcRoot,
    join(layout.runRoot, "pve"),
    layout.storageRoot,
    ...["running", "truth", "loads"].map((name) => join(layout.stateRoot, name)),
    ...settings.storages.map(({ path }) => path),
  ];
  for (const folder of folders) mkdirSync(folder, { recursive: true });
  writeFileSync(join(layout.cgroupRoot, "cgroup.controllers"), "cpuset cpu io memory pids\n");
  writeFileSync(join(layout.taskLogRoot, "tasks/active"), "");
}

/** Lays out `etc/pve`; what a cluster shares are links into its common folder. */
function makePveTree(host: Host): void {
  const { layout, settings } = host;
  mkdirSync(layout.pveRoot, { recursive: true });
  const common = commonRoot(host);
  for (const folder of ["nodes", "firewall", "priv/lock"]) {
    mkdirSync(join(common, folder), { recursive: true });
  }
  for (const folder of ["lxc", "qemu-server"]) {
    mkdirSync(join(common, "nodes", settings.nodeName, folder), { recursive: true });
  }
  for (const [name, text] of [
    [".vmlist", '{"version":1,"ids":{}}\n'],
    [".version", '{"vmlist":1}\n'],
    ["datacenter.cfg", "keyboard: en-us\n"],
  ] as const) {
    if (!existsSync(join(common, name))) writeFileSync(join(common, name), text);
  }
  if (common !== layout.pveRoot) {
    for (const name of ["nodes", "firewall", "priv", ".vmlist", ".version", "datacenter.cfg"]) {
      symlinkSync(join(common, name), join(layout.pveRoot, name));
    }
  }
  symlinkSync(`nodes/${settings.nodeName}`, join(layout.pveRoot, "local"));
  symlinkSync(`nodes/${settings.nodeName}/lxc`, join(layout.pveRoot, "lxc"));
  writeFileSync(join(layout.pveRoot, "storage.cfg"), settings.storages.map(storageEntry).join("\n"));
}

function storageEntry(storage: StorageSettings): string {
  const { id, type, path, content, shared } = storage;
  const where: Record<StorageType, string[]> = {
    dir: [`path ${path}`],
    lvmthin: ["thinpool data", "vgname pve"],
    zfspool: [`pool rpool/${id}`],
  };
  const lines = [...where[type], `content ${content}`, ...(shared ? ["shared 1"] : [])];
  return `${type}: ${id}\n${lines.map((line) => `\t${line}\n`).join("")}`;
}

/** One small script for each program, which carries the root so that it needs no environment. */
async function writeExecutables(layout: HostLayout): Promise<void> {
  mkdirSync(layout.bin, { recursive: true });
  mkdirSync(layout.procRoot, { recursive: true });
  const { main, compileCache } = await simulatedPrograms();
  for (const program of PROGRAMS) {
    const path = join(layout.bin, program);
    const script = [
      "#!/bin/sh",
      // The caller may look for the tool's own pid below the simulated /proc at once.
      `ln -s /proc/$$ ${quoted(join(layout.procRoot, "$$"))} 2>/dev/null`,
      `NODE_COMPILE_CACHE=${quoted(compileCache)} exec ${quoted(process.execPath)} ${quoted(main)} --host-root ${quoted(layout.root)} --program ${program} -- "$@"`,
      "",
    ].join("\n");
    replaceFile(path, script);
    chmodSync(path, 0o755);
  }
}

/** Quotes a path for sh, leaving `$$` to the shell. */
function quoted(path: string): string {
  return `"${path.replaceAll(/["\\`]/gu, String.raw`\$&`)}"`;
}

function writeTemplateArchives(host: Host, names: string[]): void {
  const storage = host.settings.storages.find(({ content }) => content.includes("vztmpl"));
  if (storage === undefined) return;
  const folder = join(storage.path, "template/cache");
  mkdirSync(folder, { recursive: true });
  mkdirSync(join(storage.path, "dump"), { recursive: true });
  for (const name of names) writeFileSync(join(folder, name), "a Debian that is not there\n");
}

/** Makes the template container on a storage whose clones can be linked, if there is one. */
async function makeTemplate(host: Host, wanted: number | undefined): Promise<void> {
  const { settings } = host;
  const rooms = settings.storages.filter(({ content }) => content.includes("rootdir"));
  const storage = rooms.find(({ type }) => type !== "dir") ?? rooms[0];
  if (storage === undefined) return;
  const member = readMembership(host)?.members[settings.nodeName]?.id ?? 1;
  let vmid = wanted ?? 9000 + member - 1;
  while (wanted === undefined && findVmid(host, vmid) !== undefined) vmid += 1;
  settings.templateVmid = vmid;
  writeState(join(host.layout.stateRoot, "settings.json"), settings);
  const volume = allocate(host, storage, vmid, TEMPLATE_DISK_BYTES);
  unpackSystem(rootfsOf(volume));
  volume.usedBytes = SYSTEM_BYTES;
  saveVolume(volume);
  const base = openVolume(host, convertToBase(volume));
  const config = emptyConfig();
  Object.assign(config.keys, {
    arch: "amd64",
    cores: "1",
    features: "nesting=1",
    hostname: "pod-template",
    memory: "512",
    net0: `name=eth0,bridge=${settings.bridges[0] ?? "vmbr0"},hwaddr=${randomMac()},ip=dhcp,type=veth`,
    ostype: "debian",
    rootfs: rootfsLine(base),
    swap: "0",
    template: "1",
    unprivileged: "1",
  });
  await reserveVmid(host, vmid, config);
}
