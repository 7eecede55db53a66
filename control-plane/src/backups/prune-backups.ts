import type { Logger } from "pino";
import type { Database } from "../platform/database.ts";
import { eachByItself } from "../platform/each-by-itself.ts";
import { sql } from "../platform/sql.ts";
import { isInUse } from "./backup.ts";
import { backupsToPrune, type KeptBackup } from "./backups-to-prune.ts";
import type { BackupRules } from "./backup-policy.ts";

/** Backups of a pod that is gone stay for so long, unless they have an end of their own. */
const goneDays = 30;
const podsAtOnce = 500;

interface PodRow {
  readonly podId: string;
  readonly isPodGone: boolean;
  readonly rules: BackupRules | null;
  readonly backups: readonly (Omit<KeptBackup, "startedAt" | "expiresAt"> & {
    readonly startedAt: string;
    readonly expiresAt: string | null;
  })[];
}

/**
 * Decides which backups go, pod by pod. Only the wish is written: the archive is removed by a host that sees it, which
 * is told by the errands.
 * @returns how many are to go
 */
export async function pruneBackups(
  { db, log }: { readonly db: Database; readonly log: Logger },
  now: Date,
): Promise<number> {
  const message = "it could not be decided which backups of a pod go";
  const telling = { log, message, fields: ({ podId }: PodRow) => ({ podId }) };
  let pruned = 0;
  for (let after: string | undefined; ;) {
    const pods = await readPods(db, now, after);
    await eachByItself(pods, telling, async (pod) => {
      pruned += await pruneOf(db, pod, now);
    });
    after = pods.at(-1)?.podId;
    if (after === undefined || pods.length < podsAtOnce) return pruned;
  }
}

/** Those that have a backup that could go. */
async function readPods(db: Database, now: Date, after: string | undefined): Promise<PodRow[]> {
  const end = sql`coalesce(b.expires_at, p.deleted_at + ${goneDays} * interval '1 day')`;
  return await db.query<PodRow>(sql`
    SELECT p.id AS "podId", p.status = 'deleted' AS "isPodGone",
      (SELECT json_build_object('enabled', enabled, 'everyHours', every_hours, 'keepLast', keep_last, 'keepDaily', keep_daily, 'keepWeekly', keep_weekly)
        FROM cloud_pod_backup_policies q WHERE q.pod_id = p.id) AS rules,
      json_agg(json_build_object('id', b.id, 'startedAt', b.started_at, 'isScheduled', b.kind = 'scheduled', 'isDamaged', b.damaged_at IS NOT NULL,
        'isInUse', ${isInUse}, 'expiresAt', ${end})) AS backups
    FROM cloud_pod_backups b JOIN cloud_pods p ON p.id = b.pod_id
    WHERE b.state = 'available' AND b.delete_requested_at IS NULL ${after === undefined ? sql`` : sql`AND p.id > ${after}::uuid`}
    GROUP BY p.id HAVING count(*) > 1 OR bool_or(${end} <= ${now}) ORDER BY p.id LIMIT ${podsAtOnce}`);
}

async function pruneOf(db: Database, { rules, isPodGone, backups }: PodRow, now: Date): Promise<number> {
  const retention = rules?.enabled === true ? rules : undefined;
  const kept = backups.map((backup) => ({
    ...backup,
    startedAt: new Date(backup.startedAt),
    expiresAt: backup.expiresAt === null ? null : new Date(backup.expiresAt),
  }));
  const ids = backupsToPrune(kept, { retention, isPodGone }, now);
  if (ids.length === 0) return 0;
  return await db.execute(sql`
    UPDATE cloud_pod_backups b SET delete_requested_at = ${now}, delete_reason = 'retention'
    WHERE b.id = ANY(${ids}::uuid[]) AND b.state = 'available' AND b.delete_requested_at IS NULL AND NOT ${isInUse}`);
}
