import { createHash } from "node:crypto";
import { readFile, readdir, readlink, rename } from "node:fs";
import { basename, join } from "node:path";
import { codeOf } from "../agent-error.ts";
import { CLUSTER_GROUP, type PoolCall, poolGuard, storageGroup } from "../pool-guard.ts";
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
  /** Members of the cluster and whether each is seen; empty for a standalone host. */
  readonly online: ReadonlyMap<string, boolean>;
  /** Every guest of the cluster. */
  readonly owners: ReadonlyMap<number, VmidOwner>;
}

/** A container's file. */
export interface ConfigFile {
  readonly config: ContainerConfig;
  /** SHA-256 (hex) of the text. */
  readonly sha256: string;
  /** SHA-1 (hex) of the text, which Proxmox calls its digest. */
  readonly digest: string;
}

/** How long a read may hang before the cluster file system, or the storage, counts as down. */
const READ_DEADLINE_MS = 5_000;

/**
 * Reads `.members` and `.vmlist`. Undefined when pmxcfs is not mounted (then /etc/pve is an empty
 * plain directory, which must never be read as "no containers"), is being written, or does not answer.
 */
export async function readCluster(pveRoot: string): Promise<ClusterState | undefined> {
  try {
    // Only pmxcfs makes this link; the empty directory below it has none.
    const nodeName = await readNodeName(pveRoot);
    const members = parseMembers(await readClusterFile(join(pveRoot, ".members")));
    const owners = parseVmList(await readClusterFile(join(pveRoot, ".vmlist")));
    if (members === undefined || owners === undefined || members.nodeName !== nodeName) return undefined;
    return { ...members, owners };
  } catch {
    return undefined;
  }
}

/** Name of this host inside Proxmox: where /etc/pve/local points. @throws Error when there is no such link */
export async function readNodeName(pveRoot: string): Promise<string> {
  const path = join(pveRoot, "local");
  return basename(await inTime<string>(CLUSTER_GROUP, path, (done) => readlink(path, done)));
}

/** One container's file of a node; undefined when the node has no such container. */
export async function readConfigFile(pveRoot: string, node: string, vmid: number): Promise<ConfigFile | undefined> {
  const path = join(pveRoot, "nodes", node, "lxc", `${vmid}.conf`);
  try {
    const text = await readClusterFile(path);
    const sha256 = createHash("sha256").update(text).digest("hex");
    const digest = createHash("sha1").update(text).digest("hex");
    return { config: parseContainerConfig(text), sha256, digest };
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** VMIDs of a node's containers, ascending. @throws when the directory cannot be read */
export async function readContainerIds(pveRoot: string, node: string): Promise<number[]> {
  const names = await namesIn(CLUSTER_GROUP, join(pveRoot, "nodes", node, "lxc"));
  return names
    .flatMap((name) => /^([1-9]\d{2,8})\.conf$/u.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => a - b);
}

/**
 * Takes a container's file over from another member: in Proxmox this rename is the whole change of owner. Fails
 * without quorum. @throws when the member has no such file
 */
export async function takeConfigFile(pveRoot: string, from: string, to: string, vmid: number): Promise<void> {
  const path = (node: string): string => join(pveRoot, "nodes", node, "lxc", `${vmid}.conf`);
  await inTime<void>(CLUSTER_GROUP, path(from), (done) => rename(path(from), path(to), (error) => done(error)));
}

/** Storages that this node may use. @throws when storage.cfg cannot be read */
export async function readStorages(pveRoot: string, node: string): Promise<StorageConfig[]> {
  const text = await readClusterFile(join(pveRoot, "storage.cfg"));
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
      const names = await namesIn(storageGroup(id), join(path, "template", "cache")).catch(() => []);
      return names
        .filter((name) => /^[A-Za-z0-9][A-Za-z0-9._+@-]*\.tar(?:\.(?:gz|xz|zst|bz2))?$/u.test(name))
        .map((name) => `${id}:vztmpl/${name}`);
    }),
  );
  return lists.flat().toSorted();
}

function readClusterFile(path: string): Promise<string> {
  return inTime<string>(CLUSTER_GROUP, path, (done) => readFile(path, "utf8", done));
}

function namesIn(group: string, path: string): Promise<string[]> {
  return inTime<string[]>(group, path, (done) => readdir(path, done));
}

async function inTime<T>(group: string, path: string, call: PoolCall<T>): Promise<T> {
  const asked = await poolGuard.ask(group, path, READ_DEADLINE_MS, call);
  if (asked.kind === "answered") return asked.value;
  throw asked.kind === "failed" ? asked.error : new Error("the file system does not answer");
}
