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

/** A backup that is out of reach for good. */
export type GoneBackup = Pick<DamagedBackup, "id" | "podId" | "podName" | "startedAt">;

/** Backups that an e-mail lists; the webhook has them all. */
const listedMax = 50;

/** News of backups that went with a host; undefined when there are none. */
export function goneNews(tenantId: string, backups: readonly GoneBackup[]): TenantNews | undefined {
  const [first] = backups;
  if (first === undefined) return undefined;
  const lines = backups.slice(0, listedMax).map(({ podName, startedAt }) => `- ${podName}, ${startedAt.toISOString()}`);
  const more = backups.length - lines.length;
  return {
    tenantId,
    dedupeKey: `backups-gone:${first.id}`,
    email: {
      subject: backups.length === 1 ? `A backup of ${first.podName} is gone` : `${backups.length} backups are gone`,
      text:
        `The storage that held these backups was taken out of service, and nothing can be restored from them any more:\n\n` +
        `${lines.join("\n")}${more > 0 ? `\nand ${more} more` : ""}\n\nOther backups are not affected; make new ones where you need them.\n`,
    },
    webhook: {
      event: "backups.gone",
      data: { backups: backups.map(({ id, podId, startedAt }) => ({ id, podId, startedAt: startedAt.toISOString() })) },
    },
  };
}
