import type { Logger } from "pino";
import type { Database, Queryable, Transaction } from "../platform/database.ts";
import { eachByItself } from "../platform/each-by-itself.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { isInUse } from "./backup.ts";
import { backupsToPrune, type KeptBackup } from "./backups-to-prune.ts";
import type { BackupRules } from "./backup-policy.ts";
import { notSeen } from "./note-damage.ts";
import { lockBackupsOf } from "./take-back-retention.ts";

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
    const pods = await readPods(db, now, after === undefined ? sql`true` : sql`p.id > ${after}::uuid`);
    await eachByItself(pods, telling, async (pod) => {
      if (idsToPrune(pod, now).length > 0) pruned += await db.transaction((tx) => pruneOf(tx, pod.podId, now));
    });
    after = pods.at(-1)?.podId;
    if (after === undefined || pods.length < podsAtOnce) return pruned;
  }
}

/** Those that have a backup that could go. */
async function readPods(db: Queryable, now: Date, which: Sql): Promise<PodRow[]> {
  const end = sql`coalesce(b.expires_at, p.deleted_at + ${goneDays} * interval '1 day')`;
  return await db.query<PodRow>(sql`
    SELECT p.id AS "podId", p.status = 'deleted' AS "isPodGone",
      (SELECT json_build_object('enabled', enabled, 'everyHours', every_hours, 'keepLast', keep_last, 'keepDaily', keep_daily, 'keepWeekly', keep_weekly)
        FROM cloud_pod_backup_policies q WHERE q.pod_id = p.id) AS rules,
      json_agg(json_build_object('id', b.id, 'startedAt', b.started_at, 'isScheduled', b.kind = 'scheduled', 'isDamaged', b.damaged_at IS NOT NULL,
        'isInDoubt', b.damaged_at IS NULL AND b.error_code IS NOT DISTINCT FROM ${notSeen}, 'isInUse', ${isInUse}, 'expiresAt', ${end})) AS backups
    FROM cloud_pod_backups b JOIN cloud_pods p ON p.id = b.pod_id
    WHERE b.state = 'available' AND b.delete_requested_at IS NULL AND ${which}
    GROUP BY p.id HAVING count(*) > 1 OR bool_or(${end} <= ${now}) ORDER BY p.id LIMIT ${podsAtOnce}`);
}

function idsToPrune({ rules, isPodGone, backups }: PodRow, now: Date): string[] {
  const retention = rules?.enabled === true ? rules : undefined;
  const kept = backups.map((backup) => ({
    ...backup,
    startedAt: new Date(backup.startedAt),
    expiresAt: backup.expiresAt === null ? null : new Date(backup.expiresAt),
  }));
  return backupsToPrune(kept, { retention, isPodGone }, now);
}

/** Decides with everything held that the decision rests on: the backup that another one stays for may be damaged by now. */
async function pruneOf(tx: Transaction, podId: string, now: Date): Promise<number> {
  // Pod before backup, as everybody who restores locks them.
  await tx.query(sql`SELECT FROM cloud_pods WHERE id = ${podId} FOR SHARE`);
  await lockBackupsOf(tx, podId);
  const [pod] = await readPods(tx, now, sql`p.id = ${podId}`);
  if (pod === undefined) return 0;
  return await tx.execute(sql`
    UPDATE cloud_pod_backups SET delete_requested_at = ${now}, delete_reason = 'retention'
    WHERE id = ANY(${idsToPrune(pod, now)}::uuid[])`);
}
