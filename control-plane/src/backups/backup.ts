import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";

/** Who wanted a backup: the schedule, a person, or a person who then wanted the pod gone. */
export type BackupKind = "scheduled" | "manual" | "final";

/** How the container is held still while it is read: not at all, for seconds, or stopped for the whole time. */
export const backupModes = ["snapshot", "suspend", "stop"] as const;
export type BackupMode = (typeof backupModes)[number];

/**
 * ```
 * running → available → pruned
 *     └────→ failed ──────┘
 * ```
 * `pruned`: its host has said that the archive is gone, or no host can reach it any more.
 */
export const backupStates = ["running", "available", "failed", "pruned"] as const;
export type BackupState = (typeof backupStates)[number];

/** What a pod was when it was backed up. */
export interface BackupSpec {
  readonly hostname: string;
  readonly cores: number;
  readonly memoryMb: number;
  readonly swapMb: number;
  readonly diskGb: number;
  readonly template: string;
  readonly planCode: string | null;
}

/** One archive of a pod, there or not. */
export interface Backup {
  readonly id: string;
  readonly tenantId: string;
  readonly podId: string;
  /** That made it. */
  readonly nodeId: string;
  readonly storageId: string;
  readonly storage: string;
  readonly kind: BackupKind;
  readonly mode: BackupMode;
  readonly state: BackupState;
  readonly volumeId: string | null;
  readonly sizeBytes: bigint | null;
  /** The id in the archive's name. */
  readonly vmid: number;
  readonly spec: BackupSpec;
  readonly note: string | null;
  readonly taskId: string | null;
  readonly startedAt: Date;
  readonly finishedAt: Date | null;
  readonly verifiedAt: Date | null;
  readonly damagedAt: Date | null;
  readonly expiresAt: Date | null;
  readonly deleteRequestedAt: Date | null;
  readonly prunedAt: Date | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
}

/** SELECT of whole backups; add WHERE, ORDER BY and LIMIT. `b` is the backup. */
export const selectBackups: Sql = sql`
  SELECT b.id, b.tenant_id AS "tenantId", b.pod_id AS "podId", b.node_id AS "nodeId", b.storage_id AS "storageId", b.storage, b.kind, b.mode,
    b.state, b.volume_id AS "volumeId", b.size_bytes AS "sizeBytes", b.vmid, b.spec, b.note, b.task_id AS "taskId",
    b.started_at AS "startedAt", b.finished_at AS "finishedAt", b.verified_at AS "verifiedAt", b.damaged_at AS "damagedAt",
    b.expires_at AS "expiresAt", b.delete_requested_at AS "deleteRequestedAt", b.pruned_at AS "prunedAt",
    b.error_code AS "errorCode", b.error_message AS "errorMessage"
  FROM cloud_pod_backups b`;

/** A backup of this pod. @throws DomainError `BACKUP_NOT_FOUND`, also for a backup of another pod */
export async function findBackup(tx: Queryable, pod: Pick<Pod, "id">, id: string): Promise<Backup> {
  return await findOne(tx, sql`${selectBackups} WHERE b.id = ${id} AND b.pod_id = ${pod.id}`);
}

/** As `findBackup`, and keeps the row locked to the end of the transaction. Lock the pod before. */
export async function lockBackup(tx: Queryable, pod: Pick<Pod, "id">, id: string): Promise<Backup> {
  return await findOne(tx, sql`${selectBackups} WHERE b.id = ${id} AND b.pod_id = ${pod.id} FOR UPDATE OF b`);
}

async function findOne(tx: Queryable, statement: Sql): Promise<Backup> {
  const [backup] = await tx.query<Backup>(statement);
  if (backup === undefined) throw new DomainError("not-found", "BACKUP_NOT_FOUND", "The pod has no such backup.");
  return backup;
}

/** An archive that something can be made from. */
export type UsableBackup = Backup & { readonly volumeId: string };

/**
 * Requires that a pod can be made from a backup.
 * @throws DomainError `BACKUP_NOT_AVAILABLE`, `BACKUP_DAMAGED`
 */
export function requireUsable(backup: Backup): asserts backup is UsableBackup {
  if (backup.state !== "available" || backup.volumeId === null || backup.deleteRequestedAt !== null) {
    const is = backup.state === "available" ? "being deleted" : backup.state;
    throw new DomainError("wrong-state", "BACKUP_NOT_AVAILABLE", `The backup is ${is}.`, {
      details: { state: backup.state },
    });
  }
  if (backup.damagedAt === null) return;
  throw new DomainError(
    "wrong-state",
    "BACKUP_DAMAGED",
    "The backup was not there or could not be read when its host last looked; choose another one.",
    { details: { damagedAt: backup.damagedAt } },
  );
}

/** An archive does not fit on a smaller disk. @throws DomainError `DISK_TOO_SMALL` */
export function requireRoom({ spec }: Pick<Backup, "spec">, diskGb: number): void {
  if (spec.diskGb <= diskGb) return;
  const detail = `The backup is of a disk of ${spec.diskGb} GB; ${diskGb} GB are too little for it.`;
  throw new DomainError("invalid", "DISK_TOO_SMALL", detail, {
    details: { backupDiskGb: spec.diskGb, diskGb },
  });
}

/** Whether something can be made from a backup `b`: what `requireUsable` asks of one that was read. */
export const isUsable: Sql = sql`(b.state = 'available' AND b.damaged_at IS NULL AND b.delete_requested_at IS NULL)`;

/** Whether something is being made from a backup `b`; only under the owner's login. */
export const isInUse: Sql = sql`(
  EXISTS (SELECT FROM cloud_pod_provisioning_tasks u WHERE u.pod_id = b.pod_id AND u.type = 'restore'
    AND u.state NOT IN ('succeeded', 'failed', 'cancelled') AND u.input->>'backupId' = b.id::text)
  OR EXISTS (SELECT FROM cloud_pods c WHERE c.source_backup_id = b.id AND c.status = 'provisioning')
  OR EXISTS (SELECT FROM cloud_pod_moves m WHERE m.pod_id = b.pod_id AND m.archive_volume_id = b.volume_id AND m.state IN ('reserved', 'moving')))`;
