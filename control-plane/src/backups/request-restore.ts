import type { Queryable, Transaction } from "../platform/database.ts";
import type { Accepted } from "../pods/change-power.ts";
import type { ExtraVolumes } from "../pods/extra-volumes.ts";
import { orderPod, type Ordering, type PodOrder } from "../pods/order-pod.ts";
import { lockPod, type Pod } from "../pods/pod.ts";
import { lockAskedPod, requestWork, type Requester } from "../pods/request-work.ts";
import { lockBackup, requireUsable, type Backup, type BackupSpec, type UsableBackup } from "./backup.ts";
import { hostsSeeing, notReachable } from "./backup-storage.ts";
import { requireNothingBesides, requireRestorable } from "./require-restorable.ts";
import { checkArchiveStep, restoreDeadlineMs } from "./restore-pod.saga.ts";

/**
 * Asks for a pod to become again what it was at a backup of its own. What was written since is lost; its size, its
 * plan, its address and its owner's wishes stay what they are now.
 * @throws DomainError `POD_WRONG_STATE`, `BACKUP_NOT_FOUND`, `BACKUP_NOT_AVAILABLE`, `BACKUP_DAMAGED`,
 *   `BACKUP_NOT_REACHABLE`, `DISK_TOO_SMALL`, `STORAGE_FULL`, `MORE_THAN_A_POD`, `POD_BUSY`, `VERSION_MISMATCH`
 * @param parts what the pod's container has that no pod has, snapshots included
 */
export async function requestRestore(
  tx: Transaction,
  who: Requester,
  reference: string,
  backupId: string,
  parts?: ExtraVolumes,
): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  const backup = await requireRestorable(tx, pod, await lockBackup(tx, pod, backupId));
  requireNothingBesides(parts);
  const task = await requestWork(tx, who, pod, {
    type: "restore",
    step: checkArchiveStep.name,
    deadlineMs: restoreDeadlineMs,
    input: { backupId },
    message: "Accepted",
    detail: { backupId, madeAt: backup.startedAt },
  });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task };
}

/** How the pod that is made from a backup shall be; what is left out is as it was. */
export type RestoreWish = Pick<
  PodOrder,
  "planCode" | "resources" | "name" | "hostname" | "domain" | "sshKeys" | "labels"
>;

/**
 * Orders a new pod that is made from a backup, of a pod that lives or of one that is gone. It is an order as any other,
 * with its own id, address and subscription; only its place must see the archive.
 * @throws DomainError `POD_NOT_FOUND`, `BACKUP_NOT_FOUND`, and as `newPodOf` and `orderPod`
 */
export async function orderFromBackup(
  tx: Transaction,
  who: Ordering,
  reference: string,
  backupId: string,
  wish: RestoreWish,
): Promise<Accepted> {
  const former = await lockPod(tx, who.tenantId, reference);
  return await orderPod(tx, who, await newPodOf(tx, former, await lockBackup(tx, former, backupId), wish));
}

/**
 * The order of a new pod that is made from a backup.
 * @throws DomainError `BACKUP_NOT_AVAILABLE`, `BACKUP_DAMAGED`, `BACKUP_NOT_REACHABLE`
 */
export async function newPodOf(
  tx: Queryable,
  former: Pod,
  backup: Backup,
  wish: RestoreWish,
): Promise<PodOrder & { readonly source: UsableBackup }> {
  requireUsable(backup);
  if ((await hostsSeeing(tx, backup)).length === 0) throw notReachable(backup);
  const { spec } = backup;
  const size =
    wish.planCode !== undefined || wish.resources !== undefined
      ? { planCode: wish.planCode, resources: wish.resources }
      : spec.planCode !== null
        ? { planCode: spec.planCode }
        : { resources: sizeOf(spec) };
  return { region: former.region, sshKeys: former.sshKeys, ...wish, ...size, source: backup };
}

function sizeOf({ cores, memoryMb, swapMb, diskGb }: BackupSpec) {
  return { cores, memoryMb, swapMb, diskGb };
}
