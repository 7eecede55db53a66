import { existsSync, linkSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatConfig, parseConfig } from "./container-config.ts";
import type { ContainerConfig } from "./container-config.ts";
import { CommandFailure } from "./failure.ts";
import { hasFault } from "./faults.ts";
import { namesIn, readIfPresent, readState, replaceFile, writeState } from "./files.ts";
import { isWithoutPower, layoutOf, openHost, pveContent } from "./layout.ts";
import type { Host } from "./layout.ts";
import { withMutex } from "./mutex.ts";

/** A member of the simulated cluster. */
interface ClusterMember {
  id: number;
  ip: string;
  /** The root of that member's tree: what ssh would reach. */
  root: string;
}

/** The membership that the hosts of one cluster share; kept beside the shared `/etc/pve`. */
interface ClusterMembership {
  version: number;
  members: Record<string, ClusterMember>;
}

interface VmList {
  version: number;
  ids: Record<string, { node: string; type: "lxc" | "qemu"; version: number }>;
}

/** The folder that several hosts (or this one alone) keep their common files in. */
export function commonRoot(host: Host): string {
  return host.settings.clusterRoot ?? pveContent(host);
}

/** The members of the host's cluster, or undefined for a standalone host. */
export function readMembership(host: Host): ClusterMembership | undefined {
  const { clusterRoot } = host.settings;
  return clusterRoot === null ? undefined : readState(join(clusterRoot, "membership.json"));
}

/** Adds this host to its cluster; a no-op for a standalone host or a known member. */
export async function joinCluster(host: Host): Promise<void> {
  const { clusterRoot, nodeName } = host.settings;
  if (clusterRoot === null) return;
  await withMutex(clusterRoot, "membership", () => {
    const file = join(clusterRoot, "membership.json");
    const membership = readState<ClusterMembership>(file) ?? { version: 1, members: {} };
    if (membership.members[nodeName]?.root === host.layout.root) return;
    const id = Object.keys(membership.members).length + 1;
    membership.members[nodeName] = { id, ip: `10.99.0.${id}`, root: host.layout.root };
    membership.version += 1;
    writeState(file, membership);
  });
}

/** Writes `.members` as pmxcfs shows it: with the quorum for a cluster, without for a lone host. */
export function writeMembers(host: Host): void {
  const { nodeName } = host.settings;
  const membership = readMembership(host);
  const quorate = hasFault(host.layout, "noQuorum") ? 0 : 1;
  const members = membership?.members ?? { [nodeName]: { id: 1, ip: "10.99.0.1", root: "" } };
  const nodes = Object.entries(members);
  const isThere = (name: string): boolean =>
    !hasFault(host.layout, "memberOffline", name) && !isWithoutPower(layoutOf(members[name]?.root ?? ""));
  const online = (name: string): number => (name === nodeName || (quorate === 1 && isThere(name)) ? 1 : 0);
  const lone = membership === undefined && quorate === 1;
  const content = lone
    ? { nodename: nodeName, version: 1 }
    : {
        nodename: nodeName,
        version: (membership?.version ?? 1) * 2 + quorate,
        cluster: { name: "simulated", version: nodes.length, nodes: nodes.length, quorate },
        nodelist: Object.fromEntries(nodes.map(([name, { id, ip }]) => [name, { id, online: online(name), ip }])),
      };
  const path = join(pveContent(host), ".members");
  const text = `${JSON.stringify(content, undefined, 1)}\n`;
  if (readIfPresent(path) !== text) replaceFile(path, text);
}

/** Tells the whole cluster of a member that went or came. */
export function tellMembers(host: Host): void {
  for (const { root } of Object.values(readMembership(host)?.members ?? {})) {
    const member = openHost(root);
    if (!isWithoutPower(member.layout)) writeMembers(member);
  }
}

/** @throws CommandFailure `cluster not ready - no quorum?` */
export function requireQuorum(host: Host): void {
  if (hasFault(host.layout, "noQuorum")) throw new CommandFailure("cluster not ready - no quorum?");
}

/** The file of a container of `node` (this host by default). */
function configPath(host: Host, vmid: number, node = host.settings.nodeName): string {
  return join(pveContent(host), "nodes", node, "lxc", `${vmid}.conf`);
}

/** Reads a container of this node. @throws CommandFailure with the real text and ENOENT's code */
export function readConfig(host: Host, vmid: number): ContainerConfig {
  return parseConfig(readConfigText(host, vmid));
}

/** The same, or undefined when this node has no such container, as when it went since the node's were listed. */
export function readConfigIfPresent(host: Host, vmid: number): ContainerConfig | undefined {
  const text = readIfPresent(configPath(host, vmid));
  return text === undefined ? undefined : parseConfig(text);
}

/** The text behind `readConfig`, for digests. */
export function readConfigText(host: Host, vmid: number): string {
  const text = readIfPresent(configPath(host, vmid));
  if (text === undefined) {
    const file = `nodes/${host.settings.nodeName}/lxc/${vmid}.conf`;
    throw new CommandFailure(`Configuration file '${file}' does not exist`, 2);
  }
  return text;
}

/** True while this node owns a container of that id. */
export function hasConfig(host: Host, vmid: number): boolean {
  return existsSync(configPath(host, vmid));
}

/** Replaces a container's file. @throws CommandFailure without quorum, as the read-only pmxcfs does */
export function writeConfig(host: Host, vmid: number, config: ContainerConfig): void {
  requireWritable(host, vmid);
  replaceFile(configPath(host, vmid), formatConfig(config));
}

function requireWritable(host: Host, vmid: number): void {
  if (!hasFault(host.layout, "noQuorum")) return;
  const file = `/etc/pve/nodes/${host.settings.nodeName}/lxc/${vmid}.conf.tmp.${process.pid}`;
  throw new CommandFailure(`unable to open file '${file}' - Permission denied`);
}

/** The ids of this node's containers, ascending. */
export function ownVmids(host: Host): number[] {
  return namesIn(join(pveContent(host), "nodes", host.settings.nodeName, "lxc"))
    .flatMap((name) => /^([1-9]\d+)\.conf$/u.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => a - b);
}

/** Who has an id anywhere in the cluster: a container or a virtual machine. */
export function findVmid(host: Host, vmid: number): { node: string; type: "CT" | "VM" } | undefined {
  const nodes = join(pveContent(host), "nodes");
  for (const node of namesIn(nodes)) {
    if (existsSync(join(nodes, node, "lxc", `${vmid}.conf`))) return { node, type: "CT" };
    if (existsSync(join(nodes, node, "qemu-server", `${vmid}.conf`))) return { node, type: "VM" };
  }
  return undefined;
}

/** @throws CommandFailure `CT 100 already exists on node 'pve2'` */
export function requireFreeVmid(host: Host, vmid: number): void {
  const owner = findVmid(host, vmid);
  if (owner === undefined) return;
  throw new CommandFailure(`${owner.type} ${vmid} already exists on node '${owner.node}'`);
}

/** Reserves an id for a container: its file appears with nothing but `config`, or the id was taken. */
export async function reserveVmid(
  host: Host,
  vmid: number,
  config: ContainerConfig,
  node = host.settings.nodeName,
): Promise<void> {
  requireWritable(host, vmid);
  await withMutex(commonRoot(host), "vmlist", () => {
    requireFreeVmid(host, vmid);
    const path = configPath(host, vmid, node);
    const temporary = `${path}.tmp.${process.pid}`;
    writeFileSync(temporary, formatConfig(config));
    linkSync(temporary, path);
    rmSync(temporary);
    recordOwner(host, vmid, node);
  });
}

/** Removes a container's file and its id. @throws CommandFailure without quorum */
export async function removeConfig(host: Host, vmid: number): Promise<void> {
  requireWritable(host, vmid);
  await withMutex(commonRoot(host), "vmlist", () => {
    rmSync(configPath(host, vmid), { force: true });
    recordOwner(host, vmid, undefined);
  });
}

/** Moves a container's file to another node: in Proxmox this rename is the whole change of owner. */
export async function moveConfig(host: Host, vmid: number, targetNode: string): Promise<void> {
  requireWritable(host, vmid);
  await withMutex(commonRoot(host), "vmlist", () => {
    renameSync(configPath(host, vmid), configPath(host, vmid, targetNode));
    recordOwner(host, vmid, targetNode);
  });
}

/** Keeps `.vmlist` and `.version` in step. Only call with the lock `vmlist` held. */
function recordOwner(host: Host, vmid: number, node: string | undefined): void {
  const path = join(commonRoot(host), ".vmlist");
  const { version, ids } = readVmList(host);
  const next = version + 1;
  if (node === undefined) delete ids[vmid];
  else ids[vmid] = { node, type: "lxc", version: next };
  replaceFile(path, `${JSON.stringify({ version: next, ids }, undefined, 1)}\n`);
  replaceFile(join(commonRoot(host), ".version"), `${JSON.stringify({ vmlist: next })}\n`);
}

/**
 * Brings `.vmlist` up to date with files that were moved between the folders of a cluster's nodes by hand, as
 * the real pmxcfs does at once.
 */
export async function followRenames(host: Host): Promise<void> {
  if (host.settings.clusterRoot === null) return;
  await withMutex(commonRoot(host), "vmlist", () => {
    for (const [vmid, { node, type }] of Object.entries(readVmList(host).ids)) {
      const owner = type === "lxc" ? findVmid(host, Number(vmid)) : undefined;
      if (owner !== undefined && owner.node !== node) recordOwner(host, Number(vmid), owner.node);
    }
  });
}

/** The content of `.vmlist`: every id of the cluster with its node. */
function readVmList(host: Host): VmList {
  const text = readIfPresent(join(commonRoot(host), ".vmlist"));
  // Only `recordOwner` writes the file.
  return text === undefined ? { version: 0, ids: {} } : (JSON.parse(text) as VmList);
}

/** Copies a container's firewall rules to another id, as clone does. */
export function copyFirewall(host: Host, from: number, to: number): void {
  const text = readIfPresent(firewallPath(host, from));
  if (text !== undefined) replaceFile(firewallPath(host, to), text);
}

/** Removes a container's firewall rules. */
export function removeFirewall(host: Host, vmid: number): void {
  rmSync(firewallPath(host, vmid), { force: true });
}

/** Where the firewall rules of a container lie. */
export function firewallPath(host: Host, vmid: number): string {
  return join(pveContent(host), "firewall", `${vmid}.fw`);
}
