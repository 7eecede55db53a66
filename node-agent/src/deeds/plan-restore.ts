import { ContainerFailure } from "../containers/container-failure.ts";
import type { ContainerFailureCode } from "../containers/container-failure.ts";
import type { RestoreOrder } from "../containers/containers.ts";
import { wasRestoredBy } from "../containers/marker.ts";
import { extraVolumes, isNamelessHalf, lockOf, snapshotsOf } from "../containers/observed-container.ts";
import type { ContainerHere, ObservedContainer } from "../containers/observed-container.ts";
import { requireOwnership } from "../containers/plan-container.ts";

/** What has to be done next for a restore. */
export type RestoreStep =
  /** The disk is as it shall be: the configuration follows. `restored`: it came from the archive. */
  | { readonly kind: "finish"; readonly restored: boolean }
  /** Move the dead member's configuration to this host. */
  | { readonly kind: "take-over"; readonly from: string }
  /** Take away a half-made container of ours that has no name. */
  | { readonly kind: "clean-up" }
  /** Break a lock without a holder. */
  | { readonly kind: "unlock" }
  /** Make the container from the archive, over the present one when `overwrite`. */
  | { readonly kind: "restore"; readonly overwrite: boolean };

/** What the plan must know besides the order. */
export interface RestoreFacts {
  /** The command (UUID) that a finished restore is noted under. */
  readonly commandId: string;
  readonly observed: ObservedContainer;
  /** The container as the member to take over from still has it; undefined when it has none. */
  readonly dead: Pick<ContainerHere, "config"> | undefined;
  /** Whether that member is seen by the cluster. */
  readonly deadIsOnline: boolean;
  /** Whether the disk of the container (here or at the dead member) can be seen from this host. */
  readonly diskIsShared: boolean;
  /** Whoever asks stops the container before: that it runs is nothing against it. */
  readonly isStoppedBefore: boolean;
  /** A program of ours made or unmade this container, so a nameless half of one is ours. */
  readonly ownHalf: boolean;
}

/**
 * The next step of a restore, from what is there now; safe to ask again after a crash at any point.
 * @throws ContainerFailure when it is not allowed or has to wait
 */
export function planRestore(order: RestoreOrder, facts: RestoreFacts): RestoreStep {
  const { observed } = facts;
  switch (observed.where) {
    case "nowhere":
      if (order.volumeId === "") throw refused("CONTAINER_MISSING", `nobody has container ${order.vmid}`);
      return { kind: "restore", overwrite: false };
    case "elsewhere":
      return planTakeOver(order, observed, facts);
    case "here":
      return planHere(order, observed, facts);
  }
}

function planTakeOver(
  order: RestoreOrder,
  { node, type }: Extract<ObservedContainer, { where: "elsewhere" }>,
  { dead, deadIsOnline, diskIsShared }: RestoreFacts,
): RestoreStep {
  const { vmid, takeOverFrom, volumeId } = order;
  if (type === "qemu") throw refused("VMID_CONFLICT", `VMID ${vmid} is a virtual machine of node ${node}`);
  if (node !== takeOverFrom || dead === undefined) {
    throw refused("ON_OTHER_NODE", `container ${vmid} is on node ${node}`);
  }
  requireOwnership(order, dead);
  // Its container may run and write to the very disk.
  if (deadIsOnline) throw refused("MEMBER_ONLINE", `node ${node} is seen by the cluster; nothing is taken from it`);
  if (!diskIsShared && volumeId === "") {
    throw refused("DISK_NOT_SHARED", `the disk of container ${vmid} is local to node ${node}`);
  }
  if (!diskIsShared) refuseOverwriting(order, dead);
  return { kind: "take-over", from: node };
}

function planHere(order: RestoreOrder, observed: ContainerHere, facts: RestoreFacts): RestoreStep {
  const { vmid, takeOverFrom, volumeId } = order;
  const { config, running } = observed;
  const lock = lockOf(config);
  if (isNamelessHalf(config)) {
    if (!facts.ownHalf) throw refused("VMID_CONFLICT", `container ${vmid} is half-made and carries no marker`);
    if (!observed.lockIsStale) throw locked(vmid, lock);
    return { kind: "clean-up" };
  }
  requireOwnership(order, observed);
  if (config.options.get("template") === "1") throw refused("IS_TEMPLATE", `container ${vmid} is a template`);
  if (lock !== "" && !observed.lockIsStale) throw locked(vmid, lock);
  if (wasRestoredBy(config.description, facts.commandId) && lock !== "create") {
    return { kind: "finish", restored: true };
  }
  const isTakenOver = takeOverFrom !== "";
  // What lives on a shared disk is newer than any archive.
  if (isTakenOver && facts.diskIsShared && lock !== "create") return { kind: "finish", restored: false };
  if (running && !facts.isStoppedBefore) throw refused("STILL_RUNNING", `container ${vmid} is running`);
  if (!isTakenOver && !order.overwrite) throw refused("CONTAINER_EXISTS", `container ${vmid} is there already`);
  if (volumeId === "") throw refused("DISK_NOT_SHARED", `the disk of container ${vmid} is not on shared storage`);
  refuseOverwriting(order, observed);
  return lock === "" ? { kind: "restore", overwrite: true } : { kind: "unlock" };
}

/**
 * pct restore removes every volume of the container that it replaces, with its snapshots. Those of a container that is taken
 * over are gone with its disk. @throws ContainerFailure MORE_THAN_A_POD
 */
export function refuseOverwriting(
  { vmid, takeOverFrom }: Pick<RestoreOrder, "vmid" | "takeOverFrom">,
  { config }: Pick<ContainerHere, "config">,
): void {
  const parts = [...extraVolumes(config), ...(takeOverFrom === "" ? snapshotsOf(config) : [])];
  if (parts.length === 0) return;
  const why = "which no archive of a pod holds and a restore in its place would remove";
  const message = `container ${vmid} has ${parts.join(", ")}, ${why}; remove them, or restore the backup as a new pod`;
  throw refused("MORE_THAN_A_POD", message);
}

function locked(vmid: number, lock: string): ContainerFailure {
  return new ContainerFailure("LOCKED", `CT ${vmid} is locked (${lock})`, { retryable: true });
}

function refused(code: ContainerFailureCode, message: string): ContainerFailure {
  return new ContainerFailure(code, message, { retryable: false });
}
