import type {
  BackupObservation,
  Command,
  CommandPlan,
  ContainerObservation,
  ContainerSpec,
  HostCapacity,
  Inventory,
  MoveObservation,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { ContainerWish } from "./container-wish.ts";
import type { SizesAge } from "./storage-sizes.ts";

/** One report of a running wish. */
export interface ContainerProgress {
  /** Name of the step, e.g. "clone". */
  readonly step: string;
  /** 0 to 100. */
  readonly percent: number;
  /** One line for people. */
  readonly detail: string;
}

/** Bounds and callbacks of one execution. */
export interface ExecutionOptions {
  /** Identity of the command (UUID); operations on the host are named after it. */
  readonly commandId: string;
  /**
   * Cancels the command: a running program gets SIGTERM and time to roll back. An agent that only
   * shuts down must not abort this signal: programs outlive the agent and `recover` finds them.
   */
  readonly signal: AbortSignal;
  /** How long the whole may take, in ms from the call. */
  readonly deadlineMs: number;
  readonly onProgress?: (progress: ContainerProgress) => void;
}

/** What a create needs besides, so that a half-made container can be told from a stranger's. */
export interface ConvergeOptions extends ExecutionOptions {
  /** True when the journal holds that the VMID was free before this command's first create. */
  readonly absentBefore: boolean;
  /**
   * Awaited before the first create or clone, once the VMID was seen to be free in the whole cluster:
   * the journal must have it durably before this returns.
   */
  readonly recordAbsent: () => void | Promise<void>;
  /** Awaited before a running container gets another network interface, whose counters begin at zero. */
  readonly beforeNewInterface?: () => Promise<void>;
}

/** A fulfilled wish. */
export interface ContainerOutcome {
  /** The container now; undefined when it is gone. */
  readonly observation: ContainerObservation | undefined;
  /** The exact command lines that were run, for CommandResult.command_lines. */
  readonly commandLines: readonly string[];
  /** The archive of a deed about one. */
  readonly backup?: BackupObservation;
  /** Where a container is that was to be moved. */
  readonly move?: MoveObservation;
}

/** A pod's container, under which placement. */
export type PodContainer = Pick<ContainerWish, "podId" | "vmid" | "fleetEpoch" | "generation">;

/** Which container to restart, under which placement. */
export type RebootWish = PodContainer & Pick<ContainerWish, "shutdownTimeoutSeconds">;

/** What a deed needs besides. Each may be called again after a crash and then finds out what was done. */
export interface DeedOptions extends ConvergeOptions {
  /** Awaited right before whatever stops a running container: what it used until then is read. */
  readonly beforeStop: () => Promise<void>;
}

/** An archive to make. */
export interface BackupOrder extends PodContainer {
  /** Identity of the backup (UUID): there is one archive for each, however often it is asked for. */
  readonly backupId: string;
  readonly storage: string;
  /** "snapshot", "suspend" or "stop", or "shut-down" for a container that stays stopped. */
  readonly mode: string;
}

/** An archive to look at or to remove. */
export interface ArchiveOrder {
  /** The container that was backed up. */
  readonly vmid: number;
  readonly volumeId: string;
  /** A container stands still until it was read. */
  readonly atOnce?: boolean;
}

/** A container to make from an archive, or to take over from a dead member of the cluster. */
export interface RestoreOrder extends PodContainer {
  /** Empty when nothing but a disk on shared storage will do. */
  readonly volumeId: string;
  readonly spec: ContainerSpec;
  /** Whether the pod's own stopped container may be replaced. */
  readonly overwrite: boolean;
  /** Proxmox name of the dead member; empty for none. */
  readonly takeOverFrom: string;
}

/** A container to move to another member of the cluster. */
export interface MigrateOrder extends PodContainer {
  /** Proxmox name of the member. */
  readonly target: string;
  /** Empty for the storage of the same name. */
  readonly targetStorage: string;
  /** How long a guest may take to shut down; 0 for Proxmox's own default. */
  readonly shutdownTimeoutSeconds: number;
}

/** A container that is no pod's and shall become one's. */
export interface AdoptOrder extends PodContainer {
  /** SHA-256 (hex) of the configuration that was agreed to. */
  readonly expectedConfigSha256: string;
  /** The pod whose mark an adoption in vain has left in it; empty for a container without a mark. */
  readonly replacesPodId: string;
}

/** VMIDs of containers that another member of the cluster has. */
export interface Strays {
  /** They ran here and do so no more. */
  readonly stopped: readonly number[];
  /** They could not be ended. */
  readonly running: readonly number[];
}

/** Who this host is in Proxmox. */
export interface PveIdentity {
  /** Directory below /etc/pve/nodes. */
  readonly name: string;
  /** Version of Proxmox VE; empty when unknown. */
  readonly version: string;
  /** Empty for a standalone host. */
  readonly clusterName: string;
}

/** The containers of this host. All methods throw ContainerFailure and nothing else. */
export interface Containers {
  /** One container, or undefined when the VMID is free in the whole cluster. HOST_UNKNOWN when /etc/pve cannot be trusted. */
  observe(vmid: number): Promise<ContainerObservation | undefined>;
  /**
   * Everything on the host; `known` is false when /etc/pve cannot be trusted. `sizes`: how old the sizes of storages
   * may be, `known` unless somebody asks. Never throws.
   */
  inventory(sizes?: SizesAge): Promise<Inventory>;
  hostCapacity(): Promise<HostCapacity>;
  pveIdentity(): Promise<PveIdentity>;
  /** The command lines that would fulfil a wish now. VMID 0 stands for a container that does not exist. */
  planLines(wish: ContainerWish): Promise<string[]>;
  /** What commands would run one after the other, each as if those before it had been carried out. Never throws. */
  planCommands(commands: readonly Command[]): Promise<CommandPlan[]>;
  /** Makes the container as wished; safe to call again after any failure or crash. */
  converge(wish: ContainerWish, options: ConvergeOptions): Promise<ContainerOutcome>;
  /** Restarts the container once; NOT_RUNNING when it is stopped. */
  reboot(wish: RebootWish, options: ExecutionOptions): Promise<ContainerOutcome>;
  /** Makes the archive of a backup, once. */
  backUp(order: BackupOrder, options: DeedOptions): Promise<ContainerOutcome>;
  /** Removes an archive; one that is gone counts as removed. */
  deleteBackup(order: ArchiveOrder, options: ExecutionOptions): Promise<ContainerOutcome>;
  /** Reads an archive to its end. One that is gone or damaged is an answer. */
  verifyBackup(order: ArchiveOrder, options: ExecutionOptions): Promise<ContainerOutcome>;
  /** Makes the container from an archive, or takes it over with its disk; it is stopped afterwards. */
  restore(order: RestoreOrder, options: DeedOptions): Promise<ContainerOutcome>;
  /** Fails for what such a restore would be refused for at this moment; nothing is done. */
  checkRestore(order: RestoreOrder): Promise<void>;
  /** Moves the container. Failures tell in `move` where it is. */
  migrate(order: MigrateOrder, options: DeedOptions): Promise<ContainerOutcome>;
  /** Marks a container of somebody as the pod's; CONFIG_CHANGED when it is not as agreed any more. */
  adopt(order: AdoptOrder, options: DeedOptions): Promise<ContainerOutcome>;
  /**
   * Ends containers of ours that run here although another member of the cluster has their configuration, as after
   * a partition in which they were taken over. NO_QUORUM or HOST_UNKNOWN while nothing can be concluded.
   */
  stopStrays(): Promise<Strays>;
  /** Address of eth0 without prefix, waiting up to `ms` for DHCP; undefined when none came. */
  awaitAddress(vmid: number, ms: number, signal: AbortSignal): Promise<string | undefined>;
  /**
   * After an agent restart: waits for programs that the former process left running for this
   * container and answers with what is there now. `ran` says whether the command had started any
   * program. Call `converge` afterwards to finish a wish.
   */
  recover(
    vmid: number,
    options: ExecutionOptions,
  ): Promise<{ readonly ran: boolean; readonly observation: ContainerObservation | undefined }>;
}
