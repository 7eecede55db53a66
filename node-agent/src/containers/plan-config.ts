import type { ContainerSpec, NetworkSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { AgentError } from "../agent-error.ts";
import { checkedInterfaceAddress, checkedText } from "../pct/argument-values.ts";
import { pctResize, pctRevert, pctSet } from "../pct/pct-arguments.ts";
import type { ConfigOptions, DeletableKey, RevertableKey } from "../pct/pct-arguments.ts";
import { parseProperties, parseRootDisk, splitList } from "../pct/parse-pct-config.ts";
import type { ContainerConfig } from "../pct/parse-pct-config.ts";
import { ContainerFailure } from "./container-failure.ts";
import { OWNER_TAG, replaceMarker } from "./marker.ts";
import type { Marker } from "./marker.ts";
import { CONFIG_DEFAULTS, networkOf, numberOf, rateKibOf } from "./observed-container.ts";
import { step } from "./plan-step.ts";
import type { Step } from "./plan-step.ts";

/** One change of the configuration. */
interface Change {
  readonly options?: ConfigOptions;
  readonly delete?: readonly DeletableKey[];
  /**
   * Whether applying it to a running container can fail half-way. When one of several options of a
   * call fails there, the cgroup has the others and the configuration has none of them.
   */
  readonly risky: boolean;
}

/**
 * The steps that make a configuration as specified. A stopped container takes everything in one
 * call; a running one takes each change that can fail in a call of its own.
 * @throws ContainerFailure UNPRIVILEGED_MISMATCH or DISK_SHRINK_UNSUPPORTED
 */
export function configSteps(
  vmid: number,
  config: ContainerConfig,
  running: boolean,
  marker: Marker,
  spec: ContainerSpec | undefined,
): Step[] {
  if (spec !== undefined) refuseImpossible(config, spec);
  const mark = markChange(config, marker);
  const changes = spec === undefined ? [] : specChanges(config, spec, running);
  const steps: Step[] = [];
  const together = running ? changes.filter(({ risky }) => !risky) : changes;
  if (together.length > 0 || mark !== undefined) {
    const all = merged(mark === undefined ? together : [mark, ...together]);
    steps.push(step(together.length > 0 ? "set" : "mark", pctSet(vmid, all)));
  }
  if (running) {
    for (const change of changes.filter(({ risky }) => risky)) steps.push(step("set", pctSet(vmid, change)));
  }
  if (spec !== undefined) {
    const reverts = staleWaits(config, spec);
    if (reverts.length > 0) steps.push(step("set", pctRevert(vmid, reverts)));
    if (needsGrowth(config, spec)) steps.push(step("resize", pctResize(vmid, spec.diskGb)));
  }
  return steps;
}

/** The configuration keys of a new container, except its disk. */
export function newContainerOptions(spec: ContainerSpec, marker: Marker): ConfigOptions {
  return {
    hostname: spec.hostname,
    description: replaceMarker("", marker),
    tags: [OWNER_TAG],
    cores: spec.cores,
    memoryMb: spec.memoryMb,
    swapMb: spec.swapMb,
    net0: wantedNetwork(new Map(), networkSpec(spec)),
    onboot: false,
    ...(spec.nesting ? { features: "nesting=1" } : {}),
    ...(spec.nameserver === "" ? {} : { nameserver: spec.nameserver }),
    ...(spec.searchDomain === "" ? {} : { searchDomain: spec.searchDomain }),
  };
}

function networkSpec(spec: ContainerSpec): NetworkSpec {
  if (spec.network !== undefined) return spec.network;
  throw new AgentError("INVALID_ARGUMENT", "network is missing");
}

/** @throws ContainerFailure when no command could ever make the container as specified */
export function refuseImpossible(config: ContainerConfig, spec: ContainerSpec): void {
  const unprivileged = config.options.get("unprivileged") === "1";
  if (unprivileged !== spec.unprivileged) {
    const [is, wanted] = unprivileged ? ["unprivileged", "privileged"] : ["privileged", "unprivileged"];
    const message = `the container is ${is} and cannot become ${wanted}`;
    throw new ContainerFailure("UNPRIVILEGED_MISMATCH", message, { retryable: false });
  }
  const bytes = parseRootDisk(config.options.get("rootfs") ?? "")?.sizeBytes ?? 0;
  if (bytes > spec.diskGb * 2 ** 30) {
    const message = `the disk has ${(bytes / 2 ** 30).toFixed(2)} GiB, ${spec.diskGb} GiB were asked for, and disks only grow`;
    throw new ContainerFailure("DISK_SHRINK_UNSUPPORTED", message, { retryable: false });
  }
}

function needsGrowth(config: ContainerConfig, spec: ContainerSpec): boolean {
  const bytes = parseRootDisk(config.options.get("rootfs") ?? "")?.sizeBytes;
  // A root disk without a size is a plain directory: there is nothing to grow.
  return bytes !== undefined && bytes < spec.diskGb * 2 ** 30;
}

/** The description's marker and the owner tag; what people added to either is kept. */
function markChange(config: ContainerConfig, marker: Marker): Change | undefined {
  const description = replaceMarker(config.description, marker);
  const tags = splitList(config.options.get("tags") ?? "");
  // A clone carries its template's tags until it gets its own configuration.
  const fresh = config.description !== "" && config.description.includes(" stage=new ");
  const wanted = fresh ? [OWNER_TAG] : [...new Set([...tags, OWNER_TAG])].toSorted();
  const tagsDiffer = wanted.length !== tags.length || wanted.some((tag) => !tags.includes(tag));
  if (!tagsDiffer && description === config.description) return undefined;
  return {
    risky: false,
    options: {
      ...(description === config.description ? {} : { description }),
      ...(tagsDiffer ? { tags: wanted } : {}),
    },
  };
}

function specChanges(config: ContainerConfig, spec: ContainerSpec, running: boolean): Change[] {
  const { options } = config;
  const changes: Change[] = [];
  const set = (risky: boolean, change: ConfigOptions): void => void changes.push({ risky, options: change });
  const remove = (risky: boolean, key: DeletableKey): void => void changes.push({ risky, delete: [key] });

  if (options.get("hostname") !== spec.hostname) set(false, { hostname: spec.hostname });
  if ((options.get("onboot") ?? "0") !== "0") set(false, { onboot: false });
  if (numberOf(config, "cores", CONFIG_DEFAULTS.cores) !== spec.cores) set(false, { cores: spec.cores });
  changes.push(...featureChanges(config, spec.nesting));
  changes.push(...resolverChanges(config, spec));
  if (numberOf(config, "memory", CONFIG_DEFAULTS.memoryMb) !== spec.memoryMb) {
    set(true, { memoryMb: spec.memoryMb });
  }
  if (numberOf(config, "swap", CONFIG_DEFAULTS.swapMb) !== spec.swapMb) set(true, { swapMb: spec.swapMb });
  // Limits that a template brought; `--cpulimit 0` fails on running containers under cgroup v2.
  if (options.has("cpulimit")) remove(true, "cpulimit");
  if (options.has("cpuunits")) remove(true, "cpuunits");
  for (const net0 of networkSequence(networkOf(config), networkSpec(spec), running)) set(true, { net0 });
  return changes;
}

function featureChanges(config: ContainerConfig, nesting: boolean): Change[] {
  const text = effective(config, "features");
  const features = parseProperties(text, "nesting");
  if ((features.get("nesting") === "1") === nesting) return [];
  if (nesting) features.set("nesting", "1");
  else features.delete("nesting");
  if (features.size === 0) return [{ risky: false, delete: ["features"] }];
  const list = [...features].map(([key, value]) => `${key}=${value}`).join(",");
  return [{ risky: false, options: { features: list } }];
}

function resolverChanges(config: ContainerConfig, spec: ContainerSpec): Change[] {
  const changes: Change[] = [];
  const nameserver = effective(config, "nameserver");
  if (nameserver !== spec.nameserver) {
    if (spec.nameserver === "") changes.push({ risky: false, delete: ["nameserver"] });
    else changes.push({ risky: false, options: { nameserver: spec.nameserver } });
  }
  const searchDomain = effective(config, "searchdomain");
  if (searchDomain !== spec.searchDomain) {
    if (spec.searchDomain === "") changes.push({ risky: false, delete: ["searchdomain"] });
    else changes.push({ risky: false, options: { searchDomain: spec.searchDomain } });
  }
  return changes;
}

/** What a key will be after the next start; changes of these keys wait for one. */
function effective(config: ContainerConfig, key: string): string {
  if (config.pending.deletes.includes(key)) return "";
  return config.pending.options.get(key) ?? config.options.get(key) ?? "";
}

/**
 * Keys that take effect at once and are as specified, but where a change that failed left another
 * value waiting: the next start would apply it.
 */
function staleWaits(config: ContainerConfig, spec: ContainerSpec): RevertableKey[] {
  const live: [RevertableKey, boolean][] = [
    ["cores", numberOf(config, "cores", CONFIG_DEFAULTS.cores) === spec.cores],
    ["hostname", config.options.get("hostname") === spec.hostname],
    ["memory", numberOf(config, "memory", CONFIG_DEFAULTS.memoryMb) === spec.memoryMb],
    ["net0", networkSequence(networkOf(config), networkSpec(spec), true).length === 0],
    ["swap", numberOf(config, "swap", CONFIG_DEFAULTS.swapMb) === spec.swapMb],
  ];
  return live
    .filter(([key, right]) => right && (config.pending.options.has(key) || config.pending.deletes.includes(key)))
    .map(([key]) => key);
}

/**
 * The values that net0 must take one after the other; none when it is right. Always the present
 * properties with ours replaced: leaving out `hwaddr` would give a new MAC and cut the link. A live
 * change that plugs the interface anew copies only properties that are set, so that a removed rate
 * or filter would stay: such removals go first, each alone.
 */
export function networkSequence(
  present: ReadonlyMap<string, string>,
  wanted: NetworkSpec,
  running: boolean,
): ReadonlyMap<string, string>[] {
  const target = wantedNetwork(present, wanted);
  if (sameNetwork(present, target)) return [];
  const differs = (key: string): boolean => present.get(key) !== target.get(key);
  // Another MAC makes another interface, which takes everything as it is given.
  if (!running || differs("hwaddr")) return [target];
  const isMoved = differs("bridge") || differs("tag");
  const alone = [
    ...(present.has("rate") && !target.has("rate") && (isMoved || differs("firewall")) ? ["rate"] : []),
    ...(present.has("firewall") && !target.has("firewall") && isMoved ? ["firewall"] : []),
  ];
  const left = new Map(present);
  const before = alone.map((key) => {
    left.delete(key);
    return new Map(left);
  });
  return [...before, target];
}

function wantedNetwork(present: ReadonlyMap<string, string>, wanted: NetworkSpec): Map<string, string> {
  const network = new Map(present);
  const put = (key: string, value: string): void => {
    if (value === "") network.delete(key);
    else network.set(key, value);
  };
  put("name", "eth0");
  put("bridge", checkedText("bridge", wanted.bridge, "network.bridge"));
  // Only a dry run may leave the address to be chosen.
  if (wanted.mac !== "") put("hwaddr", wanted.mac.toUpperCase());
  put("ip", checkedInterfaceAddress(wanted.ip));
  put("gw", wanted.ip === "dhcp" ? "" : wanted.gateway);
  put("tag", wanted.vlanTag === 0 ? "" : String(wanted.vlanTag));
  put("firewall", wanted.firewall ? "1" : "");
  // Proxmox counts in MiB/s; 1/1024 has ten binary digits, so the decimal fraction is exact.
  if (rateKibOf(present) !== wanted.rateLimitKibPerSecond) {
    const rate = wanted.rateLimitKibPerSecond;
    put("rate", rate === 0 ? "" : String(rate / 1024));
  }
  network.set("type", "veth");
  return network;
}

function sameNetwork(present: ReadonlyMap<string, string>, target: ReadonlyMap<string, string>): boolean {
  const relevant = (network: ReadonlyMap<string, string>): string =>
    [...network]
      // Both say the default: no filter, a veth.
      .filter(([key, value]) => !(key === "firewall" && value === "0") && key !== "type")
      .map(([key, value]) => `${key}=${value}`)
      .toSorted()
      .join(",");
  return relevant(present) === relevant(target);
}

function merged(changes: readonly Change[]): { options: ConfigOptions; delete: DeletableKey[] } {
  return {
    options: Object.assign({}, ...changes.map(({ options }) => options ?? {})) as ConfigOptions,
    delete: changes.flatMap((change) => change.delete ?? []),
  };
}
