import { notifyTenant } from "../notifications/notify-tenant.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { damagedNews, type DamagedBackup } from "./backup-news.ts";
import { takeBackRetention } from "./take-back-retention.ts";

/**
 * Error of a backup whose archive was not found when it was last looked for, as where a storage is not mounted: it is looked
 * for again, by another host where there is one, before that is believed or to take it back.
 */
export const notSeen = "ARCHIVE_NOT_SEEN";
export const lookAgainAfterMs = 3_600_000;
export const notSeenMessage = "Its archive was not found when it was last looked for; it is looked for again.";

/**
 * Notes that a host has looked at a backup's archive and nothing can be made from it. All of the pod's backups are locked.
 * Its tenant is told once.
 * @returns whether it was not known before
 */
export async function noteDamage(
  tx: Transaction,
  backup: DamagedBackup & { readonly damagedAt: Date | null },
  now: Date,
): Promise<boolean> {
  const { id, tenantId, podId, isThere, damagedAt } = backup;
  await tx.execute(
    sql`UPDATE cloud_pod_backups SET checked_at = ${now}, damaged_at = coalesce(damaged_at, ${now}) WHERE id = ${id}`,
  );
  if (damagedAt !== null) return false;
  await takeBackRetention(tx, podId);
  await notifyTenant(tx, damagedNews(backup));
  await recordAudit(tx, {
    actor: systemActor("backups"),
    requestId: undefined,
    tenantId,
    action: "backup.damaged",
    targetType: "backup",
    targetId: id,
    detail: { podId, found: isThere },
  });
  return true;
}
