import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { ContainerObservation, NetworkSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { parseProperties, parseRootDisk } from "../pct/parse-pct-config.ts";
import type { ContainerConfig } from "../pct/parse-pct-config.ts";
import { parseMarker } from "./marker.ts";

/** What a VMID is in the cluster, seen from this host. */
export type ObservedContainer =
  | { readonly where: "nowhere" }
  | { readonly where: "elsewhere"; readonly node: string; readonly type: "lxc" | "qemu" }
  | ContainerHere;

/** A container of this host. */
export interface ContainerHere {
  readonly where: "here";
  readonly config: ContainerConfig;
  /** SHA-256 (hex) of the configuration file. */
  readonly configSha256: string;
  /** SHA-1 (hex) of the configuration file, which Proxmox calls its digest. */
  readonly digest: string;
  readonly running: boolean;
  /** The lock has no living holder and had none for a while. */
  readonly lockIsStale: boolean;
}

/** Value of the lock in a configuration; empty for none. */
export function lockOf(config: ContainerConfig): string {
  return config.options.get("lock") ?? "";
}

/**
 * A configuration that holds nothing but the lock of its making or of its end: what a killed create
 * or destroy leaves.
 */
export function isNamelessHalf(config: ContainerConfig): boolean {
  return (
    ["create", "destroyed"].includes(lockOf(config)) &&
    config.options.size === 1 &&
    config.description === "" &&
    config.raw.length === 0 &&
    config.pending.options.size === 0 &&
    config.pending.deletes.length === 0 &&
    config.snapshots.length === 0
  );
}

/**
 * Keys of volumes besides the root disk, sorted: no archive of ours holds them, and they go with the container that has
 * them. Also those that the next start brings.
 */
export function extraVolumes(config: ContainerConfig): string[] {
  return keysOf(config).filter((key) => /^(?:mp|unused)\d+$/u.test(key));
}

/**
 * Snapshots as parts, which no archive of ours holds either; a volume's key could be one's name. The one that vzdump makes
 * while it reads goes with it.
 */
export function snapshotsOf({ snapshots }: ContainerConfig): string[] {
  return snapshots.filter((name) => name !== "vzdump").map((name) => `snapshot:${name}`);
}

/**
 * Keys of what no pod has, sorted: volumes besides the root disk, snapshots, interfaces besides eth0's that nothing
 * filters, and what reaches the host.
 */
export function partsOfNoPod(config: ContainerConfig): string[] {
  const others = keysOf(config).filter((key) => /^(?:net[1-9]\d*|dev\d+|hookscript)$/u.test(key));
  return [
    ...new Set([...extraVolumes(config), ...snapshotsOf(config), ...others, ...config.raw.map(([key]) => key)]),
  ].toSorted();
}

function keysOf({ options, pending }: ContainerConfig): string[] {
  return [...new Set([...options.keys(), ...pending.options.keys()])].toSorted();
}

/** What Proxmox assumes where a configuration is silent (pct.conf(5)). */
export const CONFIG_DEFAULTS = { cores: 0, memoryMb: 512, swapMb: 512 } as const;

/** A whole number of a configuration. */
export function numberOf(config: ContainerConfig, key: string, otherwise: number): number {
  const value = Number(config.options.get(key) ?? otherwise);
  return Number.isFinite(value) ? value : otherwise;
}

/** eth0's properties; empty without a network. */
export function networkOf(config: ContainerConfig): Map<string, string> {
  return parseProperties(config.options.get("net0") ?? "", "name");
}

/** Rate limit of an interface in KiB/s; Proxmox writes MiB/s with fractions. 0 for none. */
export function rateKibOf(network: ReadonlyMap<string, string>): number {
  const rate = Number(network.get("rate") ?? 0);
  return Number.isFinite(rate) ? Math.round(rate * 1024) : 0;
}

/** eth0 in the form of a specification; undefined without a network. */
function networkSpecOf(network: ReadonlyMap<string, string>): NetworkSpec | undefined {
  if (network.size === 0) return undefined;
  return {
    bridge: network.get("bridge") ?? "",
    mac: network.get("hwaddr") ?? "",
    ip: network.get("ip") ?? "",
    gateway: network.get("gw") ?? "",
    rateLimitKibPerSecond: rateKibOf(network),
    firewall: network.get("firewall") === "1",
    vlanTag: Number(network.get("tag") ?? 0) || 0,
    // Proxmox keeps it in the firewall's own file, not in the configuration.
    ipFilter: false,
  };
}

/**
 * The wire form of a container. `address` is what DHCP gave, when that is known; a static address
 * comes from the configuration.
 */
export function observationOf(
  vmid: number,
  container: ContainerHere,
  address: string | undefined,
): ContainerObservation {
  const { config } = container;
  const marker = parseMarker(config.description);
  const network = networkOf(config);
  const disk = parseRootDisk(config.options.get("rootfs") ?? "");
  const configured = network.get("ip") ?? "";
  return {
    vmid,
    podId: marker?.podId ?? "",
    generation: marker?.generation ?? 0n,
    power: container.running ? Power.POWER_RUNNING : Power.POWER_STOPPED,
    cores: numberOf(config, "cores", CONFIG_DEFAULTS.cores),
    memoryMb: numberOf(config, "memory", CONFIG_DEFAULTS.memoryMb),
    swapMb: numberOf(config, "swap", CONFIG_DEFAULTS.swapMb),
    diskGb: Math.ceil((disk?.sizeBytes ?? 0) / 2 ** 30),
    hostname: config.options.get("hostname") ?? "",
    ip: configured.includes("/") ? (configured.split("/")[0] ?? "") : (address ?? ""),
    mac: network.get("hwaddr") ?? "",
    storage: disk?.storage ?? "",
    lock: lockOf(config),
    configSha256: container.configSha256,
    rateLimitKibPerSecond: rateKibOf(network),
    template: config.options.get("template") === "1",
    network: networkSpecOf(network),
    unprivileged: config.options.get("unprivileged") === "1",
    nesting: parseProperties(config.options.get("features") ?? "", "").get("nesting") === "1",
    nameserver: config.options.get("nameserver") ?? "",
    searchDomain: config.options.get("searchdomain") ?? "",
    partsOfNoPod: partsOfNoPod(config),
  };
}
