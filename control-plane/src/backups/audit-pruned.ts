import type { Queryable } from "../platform/database.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";

/** Writes into the audit log that the archive of a backup is gone. */
export async function auditPruned(
  tx: Queryable,
  { id, tenantId }: { readonly id: string; readonly tenantId: string },
  detail: Readonly<Record<string, unknown>>,
): Promise<void> {
  await recordAudit(tx, {
    actor: systemActor("backups"),
    requestId: undefined,
    tenantId,
    action: "backup.pruned",
    targetType: "backup",
    targetId: id,
    detail,
  });
}
