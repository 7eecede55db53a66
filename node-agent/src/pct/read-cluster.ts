import { createHash } from "node:crypto";
import { lstat, readFile, readdir, readlink, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { codeOf } from "../agent-error.ts";
import { parseMembers, parseStorageConfig, parseVmList } from "./parse-pct-cluster.ts";
import type { StorageConfig, VmidOwner } from "./parse-pct-cluster.ts";
import { parseContainerConfig } from "./parse-pct-config.ts";
import type { ContainerConfig } from "./parse-pct-config.ts";

/** What the cluster file system says about this host; undefined whenever it cannot be trusted. */
export interface ClusterState {
  readonly nodeName: string;
  /** Empty for a standalone host. */
  readonly clusterName: string;
  readonly quorate: boolean;
  /** Every guest of the cluster. */
  readonly owners: ReadonlyMap<number, VmidOwner>;
}

/** A container's file. */
export interface ConfigFile {
  readonly config: ContainerConfig;
  /** SHA-256 (hex) of the text. */
  readonly sha256: string;
}

/** How long a read of the cluster file system may hang before it counts as down. */
const READ_DEADLINE_MS = 5_000;

/**
 * Reads `.members` and `.vmlist`. Undefined when pmxcfs is not mounted (then /etc/pve is an empty
 * plain directory, which must never be read as "no containers"), is being written, or does not answer.
 */
export async function readCluster(pveRoot: string): Promise<ClusterState | undefined> {
  try {
    return await withinDeadline(readClusterNow(pveRoot));
  } catch {
    return undefined;
  }
}

async function readClusterNow(pveRoot: string): Promise<ClusterState | undefined> {
  const local = join(pveRoot, "local");
  if (!(await lstat(local)).isSymbolicLink()) return undefined;
  const [members, owners] = await Promise.all([
    readFile(join(pveRoot, ".members"), "utf8").then(parseMembers),
    readFile(join(pveRoot, ".vmlist"), "utf8").then(parseVmList),
  ]);
  if (members === undefined || owners === undefined) return undefined;
  if (basename(await readlink(local)) !== members.nodeName) return undefined;
  return { ...members, owners };
}

/** One container's file of a node; undefined when the node has no such container. */
export async function readConfigFile(pveRoot: string, node: string, vmid: number): Promise<ConfigFile | undefined> {
  const path = join(pveRoot, "nodes", node, "lxc", `${vmid}.conf`);
  try {
    const text = await withinDeadline(readFile(path, "utf8"));
    const sha256 = createHash("sha256").update(text).digest("hex");
    return { config: parseContainerConfig(text), sha256 };
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** VMIDs of a node's containers, ascending. @throws when the directory cannot be read */
export async function readContainerIds(pveRoot: string, node: string): Promise<number[]> {
  const names = await withinDeadline(readdir(join(pveRoot, "nodes", node, "lxc")));
  return names
    .flatMap((name) => /^([1-9]\d{2,8})\.conf$/u.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => a - b);
}

/** Storages that this node may use. @throws when storage.cfg cannot be read */
export async function readStorages(pveRoot: string, node: string): Promise<StorageConfig[]> {
  const text = await withinDeadline(readFile(join(pveRoot, "storage.cfg"), "utf8"));
  return parseStorageConfig(text).filter(
    ({ disabled, nodes }) => !disabled && (nodes.length === 0 || nodes.includes(node)),
  );
}

/**
 * Template archives of the file-based storages, as volume ids. A storage that does not answer in
 * time or has no such directory holds none.
 */
export async function readTemplateArchives(storages: readonly StorageConfig[]): Promise<string[]> {
  const lists = await Promise.all(
    storages.map(async ({ id, path, content }) => {
      if (path === undefined || !content.includes("vztmpl")) return [];
      const cache = join(path, "template", "cache");
      const names = await withinDeadline(readdir(cache)).catch(() => []);
      return names
        .filter((name) => /^[A-Za-z0-9][A-Za-z0-9._+@-]*\.tar(?:\.(?:gz|xz|zst|bz2))?$/u.test(name))
        .map((name) => `${id}:vztmpl/${name}`);
    }),
  );
  return lists.flat().toSorted();
}

/** True when a path can be looked at in time; a dead network mount cannot. */
export async function answers(path: string): Promise<boolean> {
  return withinDeadline(stat(path)).then(
    () => true,
    () => false,
  );
}

async function withinDeadline<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("the file system does not answer")), READ_DEADLINE_MS);
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
