import type { Invocation } from "../../node-agent/src/pct/pct-arguments.ts";
import { parseProperties, parseSize, splitList } from "../../node-agent/src/pct/parse-pct-config.ts";
import type { ContainerConfig } from "../../node-agent/src/pct/parse-pct-config.ts";
import type { ObservedContainer } from "../../node-agent/src/containers/observed-container.ts";

/** A container in the model of Proxmox that the plan is tested against. */
export interface ModelContainer {
  description: string;
  options: Map<string, string>;
  pending: Map<string, string>;
  pendingDeletes: Set<string>;
  running: boolean;
}

/** Containers by VMID. */
export type ModelHost = Map<number, ModelContainer>;

const WAITS_FOR_START = new Set(["features", "nameserver", "searchdomain"]);

/** A container of the model as the agent would see it; locks in the model have no holder. */
export function seen(host: ModelHost, vmid: number): ObservedContainer {
  const container = host.get(vmid);
  if (container === undefined) return { where: "nowhere" };
  const { description, options, pending, pendingDeletes, running } = container;
  const config: ContainerConfig = {
    description,
    options: new Map(options),
    raw: [],
    pending: { options: new Map(pending), deletes: [...pendingDeletes] },
    snapshots: [],
  };
  return { where: "here", config, configSha256: "", digest: "", running, lockIsStale: options.has("lock") };
}

/**
 * Does what one invocation does to a host, from its words alone and independently of who made them.
 * @throws Error where Proxmox would refuse
 */
export function apply(host: ModelHost, { program, args }: Invocation): void {
  if (program !== "pct") return;
  const [command = "", ...rest] = args;
  const words = rest.filter((word) => !word.startsWith("--"));
  const given = new Map(
    rest.flatMap((word) => {
      const [, key, value] = /^--([a-zA-Z0-9-]+)=([\s\S]*)$/u.exec(word) ?? [];
      return key === undefined || value === undefined ? [] : [[key, value] as const];
    }),
  );
  const vmid = Number(words[0]);
  if (command === "create") return create(host, vmid, given);
  const container = host.get(vmid);
  if (container === undefined) throw new Error(`Configuration file '${vmid}.conf' does not exist`);
  const lock = container.options.get("lock");
  if (command === "unlock") return void container.options.delete("lock");
  if (lock !== undefined && command !== "exec") throw new Error(`CT is locked (${lock})`);
  switch (command) {
    case "clone":
      return clone(host, container, Number(words[1]), given);
    case "set":
      return change(container, given);
    case "resize":
      return resize(container, words[2] ?? "");
    case "start":
      requireRunning(container, false);
      applyPending(container);
      container.running = true;
      return;
    case "stop":
    case "shutdown":
      requireRunning(container, true);
      container.running = false;
      return applyPending(container);
    case "destroy":
      requireRunning(container, false);
      return void host.delete(vmid);
    case "exec":
    case "push":
      return requireRunning(container, true);
    default:
      throw new Error(`unknown command ${command}`);
  }
}

function create(host: ModelHost, vmid: number, given: ReadonlyMap<string, string>): void {
  if (host.has(vmid)) throw new Error(`CT ${vmid} already exists on node 'pve1'`);
  const container = empty();
  const [storage = "", size = ""] = (given.get("rootfs") ?? "").split(":");
  for (const [key, value] of given) {
    if (key === "description") container.description = value;
    else if (!["rootfs", "ssh-public-keys", "pool"].includes(key)) container.options.set(key, value);
  }
  container.options.set("rootfs", `${storage}:vm-${vmid}-disk-0,size=${size}G`);
  host.set(vmid, container);
}

function clone(host: ModelHost, source: ModelContainer, vmid: number, given: ReadonlyMap<string, string>): void {
  if (host.has(vmid)) throw new Error(`CT ${vmid} already exists on node 'pve1'`);
  const copy = empty();
  for (const [key, value] of source.options) if (key !== "template") copy.options.set(key, value);
  const network = parseProperties(copy.options.get("net0") ?? "", "name");
  network.set("hwaddr", "BC:24:11:FF:FF:FF");
  copy.options.set("net0", [...network].map(([key, value]) => `${key}=${value}`).join(","));
  copy.options.set("hostname", given.get("hostname") ?? "");
  copy.description = given.get("description") ?? source.description;
  host.set(vmid, copy);
}

function change(container: ModelContainer, given: ReadonlyMap<string, string>): void {
  if (given.size === 0) throw new Error("no options specified");
  for (const key of splitList(given.get("revert") ?? "")) {
    container.pending.delete(key);
    container.pendingDeletes.delete(key);
  }
  for (const key of splitList(given.get("delete") ?? "")) {
    container.pending.delete(key);
    if (container.running && WAITS_FOR_START.has(key)) container.pendingDeletes.add(key);
    else container.options.delete(key);
  }
  for (const [key, value] of given) {
    if (key === "delete" || key === "revert") continue;
    if (key === "description") container.description = value;
    else if (container.running && WAITS_FOR_START.has(key)) {
      container.pending.set(key, value);
      container.pendingDeletes.delete(key);
    } else {
      const written = key === "net0" && container.running ? hotplugged(container, value) : value;
      container.options.set(key, written);
      container.pending.delete(key);
      container.pendingDeletes.delete(key);
    }
  }
  if (!container.running) applyPending(container);
}

/** Without `hwaddr` there would be a new MAC; together with a move removed properties stay. */
function hotplugged(container: ModelContainer, value: string): string {
  const before = parseProperties(container.options.get("net0") ?? "", "name");
  const after = parseProperties(value, "name");
  if (!after.has("hwaddr")) throw new Error("the link would get a new MAC");
  const differs = (key: string): boolean => before.get(key) !== after.get(key);
  const isMoved = differs("bridge") || differs("tag");
  const staying = isMoved ? ["firewall", "rate"] : differs("firewall") ? ["rate"] : [];
  if (!differs("hwaddr")) {
    for (const key of staying) {
      const kept = before.get(key);
      if (!after.has(key) && kept !== undefined) after.set(key, kept);
    }
  }
  return [...after].map(([key, part]) => `${key}=${part}`).join(",");
}

function resize(container: ModelContainer, size: string): void {
  const [volume = ""] = (container.options.get("rootfs") ?? "").split(",");
  const before = parseSize(/size=([^,]+)/u.exec(container.options.get("rootfs") ?? "")?.[1] ?? "") ?? 0;
  const after = parseSize(size) ?? 0;
  if (after <= before) throw new Error("unable to shrink disk size");
  container.options.set("rootfs", `${volume},size=${size}`);
}

function applyPending(container: ModelContainer): void {
  for (const [key, value] of container.pending) container.options.set(key, value);
  for (const key of container.pendingDeletes) container.options.delete(key);
  container.pending.clear();
  container.pendingDeletes.clear();
}

function requireRunning(container: ModelContainer, running: boolean): void {
  if (container.running !== running) throw new Error(running ? "not running" : "already running");
}

/** A container of which nothing is known. */
export function empty(): ModelContainer {
  return { description: "", options: new Map(), pending: new Map(), pendingDeletes: new Set(), running: false };
}
