import {
  checkedDescription,
  checkedGateway,
  checkedInteger,
  checkedInterfaceAddress,
  checkedNameservers,
  checkedText,
  checkedVmid,
  checkedWord,
} from "./argument-values.ts";

/** The programs that this agent runs. */
export type Program = "pct" | "pvesm" | "pveversion" | "umount" | "vzdump" | "zstd" | "lxc-stop";

/** One invocation: no shell reads it, so its words need no quoting. */
export interface Invocation {
  readonly program: Program;
  readonly args: readonly string[];
}

/** eth0 as a property list in the order of parsing; see `parseProperties`. */
export type NetworkProperties = ReadonlyMap<string, string>;

/** The configuration keys that this agent sets. */
export interface ConfigOptions {
  readonly hostname?: string;
  readonly description?: string;
  readonly tags?: readonly string[];
  readonly cores?: number;
  readonly memoryMb?: number;
  readonly swapMb?: number;
  readonly net0?: NetworkProperties;
  /** The whole list, e.g. "fuse=1,nesting=1". */
  readonly features?: string;
  readonly onboot?: boolean;
  readonly nameserver?: string;
  readonly searchDomain?: string;
}

/** The configuration keys that this agent removes. */
export type DeletableKey = "cpulimit" | "cpuunits" | "features" | "nameserver" | "searchdomain";

/** Keys whose waiting value this agent may withdraw. */
export type RevertableKey = DeletableKey | "net0" | "memory" | "swap" | "cores" | "hostname";

function pct(...args: string[]): Invocation {
  return { program: "pct", args };
}

/** Makes a container from a template container; name and description are set in the same step. */
export function pctClone(clone: {
  readonly templateVmid: number;
  readonly vmid: number;
  readonly hostname: string;
  readonly description: string;
  readonly full: boolean;
  /** Only a full copy may go to another storage. */
  readonly storage: string;
  readonly pool: string;
}): Invocation {
  return pct(
    "clone",
    checkedVmid(clone.templateVmid),
    checkedVmid(clone.vmid),
    `--hostname=${checkedText("hostname", clone.hostname)}`,
    `--description=${checkedDescription(clone.description)}`,
    `--full=${clone.full ? 1 : 0}`,
    ...(clone.full && clone.storage !== "" ? [`--storage=${checkedText("storage", clone.storage)}`] : []),
    ...poolArgument(clone.pool),
  );
}

/** Makes a container from a template archive with everything it needs. */
export function pctCreate(create: {
  readonly vmid: number;
  readonly volumeId: string;
  readonly storage: string;
  readonly diskGb: number;
  readonly options: ConfigOptions;
  readonly pool: string;
  /** File in authorized_keys format; undefined for no keys. */
  readonly keysFile: string | undefined;
}): Invocation {
  const storage = checkedText("storage", create.storage);
  const size = checkedInteger(create.diskGb, 1, 1_048_576, "disk_gb");
  return pct(
    "create",
    checkedVmid(create.vmid),
    checkedText("volume", create.volumeId, "volume_id"),
    `--rootfs=${storage}:${size}`,
    "--unprivileged=1",
    ...optionArguments(create.options),
    ...(create.keysFile === undefined ? [] : [`--ssh-public-keys=${checkedText("path", create.keysFile)}`]),
    ...poolArgument(create.pool),
  );
}

/**
 * Makes a container from a backup. What is given replaces what the backup says; `overwrite` lets it take the
 * place of the stopped container of that id.
 */
export function pctRestore(restore: {
  readonly vmid: number;
  readonly volumeId: string;
  readonly storage: string;
  readonly diskGb: number;
  readonly options: ConfigOptions;
  readonly pool: string;
  readonly overwrite: boolean;
}): Invocation {
  const storage = checkedText("storage", restore.storage);
  const size = checkedInteger(restore.diskGb, 1, 1_048_576, "disk_gb");
  return pct(
    "restore",
    checkedVmid(restore.vmid),
    checkedText("archive", restore.volumeId, "volume_id"),
    `--rootfs=${storage}:${size}`,
    "--unprivileged=1",
    ...optionArguments(restore.options),
    ...poolArgument(restore.pool),
    ...(restore.overwrite ? ["--force=1"] : []),
  );
}

/** Moves a container to another member of the cluster; one that runs is shut down, moved and started there. */
export function pctMigrate(migrate: {
  readonly vmid: number;
  readonly target: string;
  /** Empty for the storage of the same name. */
  readonly targetStorage: string;
  readonly timeoutSeconds: number;
}): Invocation {
  const { targetStorage } = migrate;
  const timeout = checkedInteger(migrate.timeoutSeconds, 1, 86_400, "shutdown_timeout_seconds");
  return pct(
    "migrate",
    checkedVmid(migrate.vmid),
    checkedText("node", migrate.target, "target"),
    "--restart=1",
    `--timeout=${timeout}`,
    ...(targetStorage === "" ? [] : [`--target-storage=${checkedText("storage", targetStorage, "target_storage")}`]),
  );
}

/** Changes the configuration; running containers take most changes at once. */
export function pctSet(
  vmid: number,
  change: {
    readonly options?: ConfigOptions;
    readonly delete?: readonly DeletableKey[];
    /** SHA-1 (hex) of the file that the change was made for: another one is refused. */
    readonly digest?: string;
  },
): Invocation {
  const removed = change.delete ?? [];
  return pct(
    "set",
    checkedVmid(vmid),
    ...optionArguments(change.options ?? {}),
    ...(removed.length === 0 ? [] : [`--delete=${removed.join(",")}`]),
    ...(change.digest === undefined ? [] : [`--digest=${checkedText("sha1", change.digest)}`]),
  );
}

/** Withdraws changes that wait for the next start. */
export function pctRevert(vmid: number, keys: readonly RevertableKey[]): Invocation {
  return pct("set", checkedVmid(vmid), `--revert=${keys.join(",")}`);
}

/** Grows the root disk to a size in GiB. */
export function pctResize(vmid: number, diskGb: number): Invocation {
  const size = checkedInteger(diskGb, 1, 1_048_576, "disk_gb");
  return pct("resize", checkedVmid(vmid), "rootfs", `${size}G`);
}

export function pctStart(vmid: number): Invocation {
  return pct("start", checkedVmid(vmid));
}

/** Asks the guest to shut down and stops it when the time is over. */
export function pctShutdown(vmid: number, timeoutSeconds: number): Invocation {
  const timeout = checkedInteger(timeoutSeconds, 1, 86_400, "shutdown_timeout_seconds");
  return pct("shutdown", checkedVmid(vmid), `--timeout=${timeout}`, "--forceStop=1");
}

/** Stops at once, also when a shutdown is waiting for the guest. */
export function pctStop(vmid: number): Invocation {
  return pct("stop", checkedVmid(vmid), "--overrule-shutdown=1");
}

/** Restarts and applies what waits for a restart; the guest is killed when the time is over. */
export function pctReboot(vmid: number, timeoutSeconds: number): Invocation {
  const timeout = checkedInteger(timeoutSeconds, 1, 86_400, "shutdown_timeout_seconds");
  return pct("reboot", checkedVmid(vmid), `--timeout=${timeout}`);
}

export function pctUnlock(vmid: number): Invocation {
  return pct("unlock", checkedVmid(vmid));
}

/** Removes the container, its disks (also those that its configuration does not name) and its jobs. */
export function pctDestroy(vmid: number): Invocation {
  return pct("destroy", checkedVmid(vmid), "--purge=1", "--destroy-unreferenced-disks=1");
}

/** Runs a command inside the container with a clean environment. */
export function pctExec(vmid: number, command: readonly string[]): Invocation {
  return pct("exec", checkedVmid(vmid), "--keep-env=0", "--", ...command.map(checkedWord));
}

/** Copies a file of the host into the container, owned by its root and readable by nobody else. */
export function pctPush(vmid: number, source: string, destination: string): Invocation {
  return pct(
    "push",
    checkedVmid(vmid),
    checkedText("path", source),
    checkedText("path", destination),
    "--perms=0600",
    "--user=0",
    "--group=0",
  );
}

/** The version of Proxmox VE. */
export function pveVersion(): Invocation {
  return { program: "pveversion", args: [] };
}

/**
 * Sizes and states of the storages of this host, or of one that holds containers: pvesm asks all of them whichever it is to show,
 * but those of other contents, as where only backups lie.
 */
export function pvesmStatus(storage?: string): Invocation {
  const only = storage === undefined ? [] : [`--storage=${checkedText("storage", storage)}`, "--content=rootdir"];
  return { program: "pvesm", args: ["status", ...only] };
}

/**
 * Backs a container up. The notes carry the backup's identity, by which its archive is found again; nothing is
 * pruned, whatever the storage says. Other jobs of the host are waited for a minute, then the agent's own
 * patience decides.
 */
export function vzdump(backup: {
  readonly vmid: number;
  readonly storage: string;
  readonly mode: string;
  readonly backupId: string;
}): Invocation {
  const args = [
    checkedVmid(backup.vmid),
    `--storage=${checkedText("storage", backup.storage)}`,
    `--mode=${checkedText("dumpMode", backup.mode, "mode")}`,
    "--compress=zstd",
    `--notes-template=${checkedText("uuid", backup.backupId, "backup_id")}`,
    "--remove=0",
    "--lockwait=1",
  ];
  return { program: "vzdump", args };
}

/** The backups of one container on a storage, oldest first. Fails when the storage does not answer. */
export function pvesmListBackups(storage: string, vmid: number): Invocation {
  const args = ["list", checkedText("storage", storage), "--content=backup", `--vmid=${checkedVmid(vmid)}`];
  return { program: "pvesm", args };
}

/** Where a volume lies on this host; says nothing about whether it does. */
export function pvesmPath(volumeId: string): Invocation {
  return { program: "pvesm", args: ["path", checkedText("archive", volumeId, "volume_id")] };
}

/** Removes an archive with its notes and its log. */
export function pvesmFree(volumeId: string): Invocation {
  return { program: "pvesm", args: ["free", checkedText("archive", volumeId, "volume_id")] };
}

/** Reads an archive to its end and compares its checksums. */
export function zstdTest(path: string): Invocation {
  return { program: "zstd", args: ["--test", "--quiet", checkedText("path", path)] };
}

/** Ends a container at once, also one that has no configuration here. */
export function lxcStop(vmid: number): Invocation {
  return { program: "lxc-stop", args: [`--name=${checkedVmid(vmid)}`, "--kill"] };
}

/** Detaches everything below a mount point. */
export function umountRecursively(path: string): Invocation {
  return { program: "umount", args: ["-R", checkedText("path", path)] };
}

/** A property list as Proxmox writes it back: the name first, the rest by alphabet. */
export function formatNetwork(network: NetworkProperties): string {
  const parts = [...network]
    .toSorted(([a], [b]) => (a === "name" ? -1 : b === "name" ? 1 : a < b ? -1 : 1))
    .map(([key, value]) => `${checkedText("propertyName", key)}=${checkedProperty(key, value)}`);
  return parts.join(",");
}

function checkedProperty(key: string, value: string): string {
  switch (key) {
    case "bridge":
      return checkedText("bridge", value, "network.bridge");
    case "hwaddr":
      return checkedText("mac", value, "network.mac");
    case "ip":
      return checkedInterfaceAddress(value);
    case "gw":
      return checkedGateway(value);
    case "tag":
      return checkedInteger(Number(value), 1, 4094, "network.vlan_tag");
    default:
      return checkedText("property", value, `network.${key}`);
  }
}

function poolArgument(pool: string): string[] {
  return pool === "" ? [] : [`--pool=${checkedText("pool", pool)}`];
}

function optionArguments(options: ConfigOptions): string[] {
  const args: string[] = [];
  const { hostname, description, tags, cores, memoryMb, swapMb, net0, features } = options;
  if (hostname !== undefined) args.push(`--hostname=${checkedText("hostname", hostname)}`);
  if (description !== undefined) args.push(`--description=${checkedDescription(description)}`);
  if (tags !== undefined) args.push(`--tags=${tags.map((tag) => checkedText("tag", tag)).join(";")}`);
  if (cores !== undefined) args.push(`--cores=${checkedInteger(cores, 1, 8192, "cores")}`);
  if (memoryMb !== undefined) {
    args.push(`--memory=${checkedInteger(memoryMb, 16, 1 << 30, "memory_mb")}`);
  }
  if (swapMb !== undefined) args.push(`--swap=${checkedInteger(swapMb, 0, 1 << 30, "swap_mb")}`);
  if (net0 !== undefined) args.push(`--net0=${formatNetwork(net0)}`);
  if (features !== undefined) args.push(`--features=${checkedText("features", features)}`);
  if (options.onboot !== undefined) args.push(`--onboot=${options.onboot ? 1 : 0}`);
  if (options.nameserver !== undefined) {
    args.push(`--nameserver=${checkedNameservers(options.nameserver)}`);
  }
  if (options.searchDomain !== undefined) {
    args.push(`--searchdomain=${checkedText("hostname", options.searchDomain, "search_domain")}`);
  }
  return args;
}
