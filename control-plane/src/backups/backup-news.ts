import type { TenantNews } from "../notifications/notify-tenant.ts";

/** A backup that could not be read when it was looked at again. */
export interface DamagedBackup {
  readonly id: string;
  readonly tenantId: string;
  readonly podId: string;
  readonly podName: string;
  readonly startedAt: Date;
  /** The archive is there, but not readable. */
  readonly isThere: boolean;
}

/** News of a damaged backup; told once for each. */
export function damagedNews({ id, tenantId, podId, podName, startedAt, isThere }: DamagedBackup): TenantNews {
  const of = startedAt.toISOString();
  return {
    tenantId,
    dedupeKey: `backup-damaged:${id}`,
    email: {
      subject: `A backup of ${podName} cannot be used any more`,
      text:
        `The backup of ${podName} of ${of} was looked at again and ${isThere ? "cannot be read to its end" : "is not there any more"}. ` +
        `Nothing can be restored from it. Other backups of the pod are not affected; make a new one if you need it.\n`,
    },
    webhook: {
      event: "backup.damaged",
      data: { backupId: id, podId, startedAt: of, found: isThere },
    },
  };
}
