import { existsSync } from "node:fs";
import { join } from "node:path";
import { readState } from "./files.ts";

/** Where each part of a host lies below its root; the names are those of a real Proxmox VE host. */
export interface HostLayout {
  root: string;
  bin: string;
  pveRoot: string;
  cgroupRoot: string;
  procRoot: string;
  netClassRoot: string;
  taskLogRoot: string;
  lockRoot: string;
  lxcRoot: string;
  runRoot: string;
  storageRoot: string;
  /** What a real host keeps in memory or in its kernel: running containers, loads, totals. */
  stateRoot: string;
  faultsFile: string;
}

/** The layout of the host whose tree starts at `root` (absolute). */
export function layoutOf(root: string): HostLayout {
  return {
    root,
    bin: join(root, "bin"),
    pveRoot: join(root, "etc/pve"),
    cgroupRoot: join(root, "sys/fs/cgroup"),
    procRoot: join(root, "proc"),
    netClassRoot: join(root, "sys/class/net"),
    taskLogRoot: join(root, "var/log/pve"),
    lockRoot: join(root, "run/lock"),
    lxcRoot: join(root, "var/lib/lxc"),
    runRoot: join(root, "run"),
    storageRoot: join(root, "storage"),
    stateRoot: join(root, "state"),
    faultsFile: join(root, "faults.json"),
  };
}

export type StorageType = "dir" | "lvmthin" | "zfspool";

/** One entry of storage.cfg with the size that the simulated disk behind it has. */
export interface StorageSettings {
  id: string;
  type: StorageType;
  totalGb: number;
  shared: boolean;
  /** Comma list of storage.cfg: `rootdir,images,vztmpl,backup,snippets`. */
  content: string;
  /** Absolute folder that holds the volumes. */
  path: string;
}

/** What a host was made with; constant for the life of its root. */
export interface HostSettings {
  nodeName: string;
  cores: number;
  memoryMb: number;
  storages: StorageSettings[];
  templateVmid: number;
  bridges: string[];
  /** Factor on every duration: 1 is a real host, 0 never waits on purpose. */
  speed: number;
  /** Folder shared by the hosts of one cluster, or null for a standalone host. */
  clusterRoot: string | null;
}

/** A host as the executables see it. */
export interface Host {
  layout: HostLayout;
  settings: HostSettings;
}

/** Opens the host at `root`. @throws Error when there is none */
export function openHost(root: string): Host {
  const layout = layoutOf(root);
  const settings = readState<HostSettings>(join(layout.stateRoot, "settings.json"));
  if (settings === undefined) throw new Error(`no simulated host at ${root}`);
  return { layout, settings };
}

/** Where it is written that the host has no power. */
export function powerCutFile(layout: HostLayout): string {
  return join(layout.stateRoot, "power-cut");
}

/** True from a cut of the host's power until it boots. */
export function isWithoutPower(layout: HostLayout): boolean {
  return existsSync(powerCutFile(layout));
}

/**
 * The folder that holds the cluster file system's content. It is `etc/pve` except while the
 * simulated pmxcfs is down, when `etc/pve` is an empty plain folder.
 */
export function pveContent(host: Host): string {
  const hidden = hiddenPveContent(host.layout);
  return existsSync(hidden) ? hidden : host.layout.pveRoot;
}

/** Where the content of `etc/pve` waits while the simulated pmxcfs is down. */
export function hiddenPveContent(layout: HostLayout): string {
  return join(layout.root, "etc/.pmxcfs-content");
}
