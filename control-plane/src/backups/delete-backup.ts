import { DomainError } from "@cloudpods/shared/errors";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { findPod } from "../pods/pod.ts";
import type { Requester } from "../pods/request-work.ts";
import { recordAudit } from "../security/audit.ts";
import { lockBackup, type Backup } from "./backup.ts";
import { lockBackupsOf, takeBackRetention } from "./take-back-retention.ts";

/**
 * Wishes a backup gone, of a pod that lives or not; a host that sees it is told soon. Again is as good as once.
 * @throws DomainError `POD_NOT_FOUND`, `BACKUP_NOT_FOUND`, `BACKUP_NOT_AVAILABLE` for one that is being made, `BACKUP_IN_USE`
 */
export async function deleteBackup(
  tx: Transaction,
  who: Requester,
  reference: string,
  backupId: string,
  now: Date,
): Promise<Backup> {
  const pod = await findPod(tx, who.tenantId, reference);
  await lockBackupsOf(tx, pod.id);
  const backup = await lockBackup(tx, pod, backupId);
  if (backup.state === "running")
    throw new DomainError("wrong-state", "BACKUP_NOT_AVAILABLE", "The backup is being made; cancel its task instead.");
  if (backup.state !== "available" || backup.deleteRequestedAt !== null) return backup;
  await refuseInUse(tx, backup);
  await takeBackRetention(tx, pod.id);
  await tx.execute(sql`
    UPDATE cloud_pod_backups SET delete_requested_at = ${now}, delete_reason = ${`asked for by ${who.actor.kind}:${who.actor.id}`} WHERE id = ${backup.id}`);
  await recordAudit(tx, {
    actor: who.actor,
    requestId: who.requestId,
    tenantId: who.tenantId,
    action: "backup.delete",
    targetType: "backup",
    targetId: backup.id,
    detail: { podId: pod.id, madeAt: backup.startedAt },
  });
  return await lockBackup(tx, pod, backup.id);
}

/** What its tenant can see; that no host needs it is asked again before one is told to remove it. */
async function refuseInUse(tx: Transaction, { id, podId }: Backup): Promise<void> {
  const users = await tx.query(sql`
    SELECT FROM cloud_pod_provisioning_tasks WHERE pod_id = ${podId} AND type = 'restore' AND state NOT IN ('succeeded', 'failed', 'cancelled')
      AND input->>'backupId' = ${id}
    UNION ALL SELECT FROM cloud_pods WHERE source_backup_id = ${id} AND status = 'provisioning'`);
  if (users.length > 0)
    throw new DomainError("conflict", "BACKUP_IN_USE", "Something is being restored from this backup.", {
      retryAfterSeconds: 60,
    });
}
