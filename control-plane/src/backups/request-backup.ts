import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Accepted } from "../pods/change-power.ts";
import { lockPod, type Pod } from "../pods/pod.ts";
import { lockAskedPod, requestWork, type Requester } from "../pods/request-work.ts";
import type { BackupKind, BackupMode, BackupSpec } from "./backup.ts";
import { makeArchiveStep } from "./archive-steps.ts";
import { backupDeadlineMs } from "./back-up-pod.saga.ts";
import { chooseBackupPlace } from "./backup-storage.ts";

/** Backups of a pod that people may ask for and keep; whoever wants more deletes one. */
export const manualBackupsMax = 5;

/**
 * Asks for a backup of a pod now.
 * @throws DomainError `POD_WRONG_STATE`, `NO_BACKUP_STORAGE`, `BACKUP_LIMIT_REACHED`, `POD_BUSY`, `VERSION_MISMATCH`
 */
export async function requestBackup(
  tx: Transaction,
  who: Requester,
  reference: string,
  wish: { readonly mode?: BackupMode | undefined; readonly note?: string | undefined },
): Promise<Accepted & { readonly backupId: string }> {
  const pod = await lockAskedPod(tx, who, reference);
  requireBackable(pod);
  await refuseTooMany(tx, pod);
  const backupId = newId();
  const task = await requestWork(tx, who, pod, {
    type: "backup",
    step: makeArchiveStep.name,
    deadlineMs: backupDeadlineMs,
    input: { backupId },
    message: "Accepted",
    detail: { backupId, note: wish.note ?? null },
  });
  await insertBackup(tx, pod, { id: backupId, kind: "manual", taskId: task.id, ...wish });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task, backupId };
}

/** @throws DomainError `POD_WRONG_STATE` for pods without a container that is worth keeping */
export function requireBackable(pod: Pod): void {
  if ((pod.status === "active" || pod.status === "suspended") && pod.nodeId !== null) return;
  throw new DomainError(
    "wrong-state",
    "POD_WRONG_STATE",
    `The pod is ${pod.status}; this needs a pod that is active or suspended.`,
    { details: { status: pod.status, allowed: ["active", "suspended"] } },
  );
}

/** Held by the pod's row: two at once are counted one after the other. */
async function refuseTooMany(tx: Queryable, pod: Pod): Promise<void> {
  const rows = await tx.query(sql`
    SELECT FROM cloud_pod_backups WHERE pod_id = ${pod.id} AND kind = 'manual' AND state IN ('running', 'available') AND delete_requested_at IS NULL`);
  if (rows.length < manualBackupsMax) return;
  throw new DomainError(
    "conflict",
    "BACKUP_LIMIT_REACHED",
    `A pod keeps ${manualBackupsMax} backups besides those of its schedule; delete one first.`,
    { details: { backups: rows.length, max: manualBackupsMax } },
  );
}

/**
 * Notes a backup that a task is about to make, and where. The pod's row is locked.
 * @throws DomainError `NO_BACKUP_STORAGE`
 */
export async function insertBackup(
  tx: Queryable,
  pod: Pod,
  order: {
    readonly id: string;
    readonly kind: BackupKind;
    readonly taskId: string;
    readonly mode?: BackupMode | undefined;
    readonly note?: string | undefined;
  },
): Promise<void> {
  const { nodeId, storageId, storage, mode } = await chooseBackupPlace(tx, pod, order.mode);
  await tx.execute(sql`
    INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, generation, vmid, spec, note, task_id)
    VALUES (${order.id}, ${pod.tenantId}, ${pod.id}, ${nodeId}, ${storageId}, ${storage}, ${order.kind}, ${mode}, ${pod.generation},
      ${pod.vmid}, ${JSON.stringify(specOf(pod))}, ${order.note ?? null}, ${order.taskId})`);
}

function specOf({ hostname, cores, memoryMb, swapMb, diskGb, template, planCode }: Pod): BackupSpec {
  return { hostname, cores, memoryMb, swapMb, diskGb, template: template ?? "", planCode };
}
