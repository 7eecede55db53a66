import { ContainerFailure } from "../containers/container-failure.ts";
import type { MigrateOrder } from "../containers/containers.ts";
import type { StorageConfig } from "../pct/parse-pct-cluster.ts";
import { parseRootDisk } from "../pct/parse-pct-config.ts";
import type { ContainerConfig } from "../pct/parse-pct-config.ts";

/** Storages that each of two members may use. */
export interface MemberStorages {
  readonly here: readonly StorageConfig[];
  readonly there: readonly StorageConfig[];
}

/** Storage types whose snapshots Proxmox moves with a volume. */
const SNAPSHOT_MOVERS: ReadonlySet<string> = new Set(["zfspool", "btrfs"]);

/**
 * Refuses what Proxmox would refuse only after it has shut the guest down. That a volume on lvmthin is a linked
 * clone cannot be seen in its name; Proxmox says it then. @throws ContainerFailure
 */
export function refuseImmovable(
  { targetStorage, target }: Pick<MigrateOrder, "targetStorage" | "target">,
  config: ContainerConfig,
  { here, there }: MemberStorages,
): void {
  const disk = parseRootDisk(config.options.get("rootfs") ?? "");
  const storage = here.find(({ id }) => id === disk?.storage);
  if (disk === undefined || storage === undefined) return;
  const wanted = targetStorage === "" || storage.shared ? storage.id : targetStorage;
  if (!there.some(({ id }) => id === wanted)) {
    const message = `storage '${wanted}' is not available on node '${target}'`;
    throw new ContainerFailure("STORAGE_UNAVAILABLE", message, { retryable: false });
  }
  if (storage.shared) return;
  if (/[:/]base(?:vol)?-\d+-disk-\d+(?:\.\w+)?\//u.test(disk.volumeId)) {
    const message = `can't migrate local volume '${disk.volumeId}': it is a linked clone`;
    throw new ContainerFailure("LINKED_CLONE_NOT_MOVABLE", message, { retryable: false });
  }
  if (config.snapshots.length > 0 && !SNAPSHOT_MOVERS.has(storage.type)) {
    const message = `can't migrate local volume '${disk.volumeId}': it has snapshots`;
    throw new ContainerFailure("SNAPSHOT_NOT_MOVABLE", message, { retryable: false });
  }
}
