import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** Backups of the last day, and what is not well with those that there are. */
export interface BackupCounts {
  readonly running: number;
  readonly succeeded: number;
  readonly failed: number;
  /** Of any day. */
  readonly lastSuccessAt: Date | null;
  /** Backups whose time has come and that were not begun. */
  readonly due: number;
  readonly oldestDueAt: Date | null;
  /** They were there once and are not, or cannot be read any more. */
  readonly damaged: number;
}

/** Counts backups. */
export async function countBackups(db: Queryable): Promise<BackupCounts> {
  const [counts] = await db.query<BackupCounts>(sql`
    SELECT (SELECT count(*)::integer FROM cloud_pod_backups WHERE state = 'running') AS running, ended.*,
      (SELECT max(finished_at) FROM cloud_pod_backups WHERE state IN ('available', 'pruned') AND finished_at IS NOT NULL) AS "lastSuccessAt",
      due.*, (SELECT count(*)::integer FROM cloud_pod_backups WHERE state = 'available' AND damaged_at IS NOT NULL) AS damaged
    FROM (SELECT (count(*) - count(*) FILTER (WHERE state = 'failed'))::integer AS succeeded, count(*) FILTER (WHERE state = 'failed')::integer AS failed
        FROM cloud_pod_backups WHERE finished_at >= now() - interval '24 hours') AS ended,
      (SELECT count(*)::integer AS due, min(q.next_at) AS "oldestDueAt" FROM cloud_pod_backup_policies q JOIN cloud_pods p ON p.id = q.pod_id
        WHERE q.enabled AND q.next_at <= now() AND p.status = 'active') AS due`);
  if (counts === undefined) throw new Error("aggregates returned no row");
  return counts;
}
