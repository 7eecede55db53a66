import { splitList } from "./parse-pct-config.ts";

/** `/etc/pve/.members`. */
export interface ClusterMembers {
  readonly nodeName: string;
  /** Empty for a standalone host. */
  readonly clusterName: string;
  /** A host without a cluster always has quorum. */
  readonly quorate: boolean;
  /** Members of the cluster and whether each is seen; empty for a standalone host. */
  readonly online: ReadonlyMap<string, boolean>;
}

/** Parses `.members`; undefined when it is not what pmxcfs writes. */
export function parseMembers(text: string): ClusterMembers | undefined {
  const content = parseObject(text);
  const nodeName = content?.["nodename"];
  if (content === undefined || typeof nodeName !== "string") return undefined;
  const cluster = content["cluster"];
  if (cluster === undefined) return { nodeName, clusterName: "", quorate: true, online: new Map() };
  if (!isObject(cluster)) return undefined;
  const name = cluster["name"];
  return {
    nodeName,
    clusterName: typeof name === "string" ? name : "",
    quorate: cluster["quorate"] === 1,
    online: parseOnline(content["nodelist"]),
  };
}

function parseOnline(nodes: unknown): ReadonlyMap<string, boolean> {
  if (!isObject(nodes)) return new Map();
  return new Map(Object.entries(nodes).map(([name, node]) => [name, isObject(node) && node["online"] === 1]));
}

/** Who has a VMID anywhere in the cluster. */
export interface VmidOwner {
  readonly node: string;
  readonly type: "lxc" | "qemu";
}

/** Parses `/etc/pve/.vmlist`; undefined when it is not what pmxcfs writes. */
export function parseVmList(text: string): ReadonlyMap<number, VmidOwner> | undefined {
  const ids = parseObject(text)?.["ids"];
  if (!isObject(ids)) return undefined;
  const owners = new Map<number, VmidOwner>();
  for (const [vmid, entry] of Object.entries(ids)) {
    if (!isObject(entry) || !/^\d+$/u.test(vmid)) continue;
    const { node, type } = { node: entry["node"], type: entry["type"] };
    if (typeof node !== "string") continue;
    owners.set(Number(vmid), { node, type: type === "lxc" ? "lxc" : "qemu" });
  }
  return owners;
}

/** One entry of `/etc/pve/storage.cfg`. */
export interface StorageConfig {
  readonly id: string;
  readonly type: string;
  readonly content: readonly string[];
  readonly shared: boolean;
  readonly disabled: boolean;
  /** Members that may use it; empty for all. */
  readonly nodes: readonly string[];
  /** Where file-based storages keep their files; undefined for others. */
  readonly path: string | undefined;
  /** What tells a storage that several hosts see from every other one; empty for storages of one host. */
  readonly backend: string;
}

/** Storage types that several hosts see without saying `shared`. */
const NETWORK_TYPES: ReadonlySet<string> = new Set([
  "nfs",
  "cifs",
  "cephfs",
  "rbd",
  "glusterfs",
  "iscsi",
  "iscsidirect",
  "pbs",
  "zfs",
  "esxi",
]);

/** Parses `storage.cfg`: "type: id", then indented "key value" lines. */
export function parseStorageConfig(text: string): StorageConfig[] {
  const storages: StorageConfig[] = [];
  let current: { id: string; type: string; keys: Map<string, string> } | undefined;
  const finish = (): void => {
    if (current !== undefined) storages.push(storageOf(current.id, current.type, current.keys));
  };
  for (const line of text.split("\n")) {
    const [, type, id] = /^([a-z]+):\s*([A-Za-z][A-Za-z0-9\-_.]*)\s*$/u.exec(line) ?? [];
    if (type !== undefined && id !== undefined) {
      finish();
      current = { id, type, keys: new Map() };
      continue;
    }
    const [, key, value] = /^\s+([a-z][a-z0-9-]*)(?:\s+(.*?))?\s*$/u.exec(line) ?? [];
    if (key !== undefined) current?.keys.set(key, value ?? "1");
  }
  finish();
  return storages;
}

function storageOf(id: string, type: string, keys: ReadonlyMap<string, string>): StorageConfig {
  const implied = NETWORK_TYPES.has(type) ? `/mnt/pve/${id}` : undefined;
  return {
    id,
    type,
    content: splitList(keys.get("content") ?? ""),
    shared: NETWORK_TYPES.has(type) || keys.get("shared") === "1",
    disabled: keys.has("disable") && keys.get("disable") !== "0",
    nodes: splitList(keys.get("nodes") ?? ""),
    path: keys.get("path") ?? implied,
    backend: backendOf(type, keys),
  };
}

/** Which keys of an entry say where its data really is, by type. */
const LOCATIONS: Readonly<Record<string, readonly string[]>> = {
  nfs: ["server", "export"],
  cifs: ["server", "share", "subdir"],
  cephfs: ["monhost", "fs-name", "subdir"],
  glusterfs: ["server", "volume"],
  pbs: ["server", "datastore", "namespace"],
  rbd: ["monhost", "pool", "namespace"],
};

/** A directory counts when its administrator declared it shared: then its path is the same mount everywhere. */
function backendOf(type: string, keys: ReadonlyMap<string, string>): string {
  const declared = type === "dir" && keys.get("shared") === "1" ? ["path"] : [];
  const named = (LOCATIONS[type] ?? declared).flatMap((key) => keys.get(key) ?? []);
  return named.length === 0 ? "" : [type, ...named].join(":");
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    // pmxcfs may be caught while it writes; the caller treats that as unknown.
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
