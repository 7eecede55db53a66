import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";

/** So many periods without a backup are too many. */
const periodsMax = 2;

/** Says when a pod that is backed up by its rules has had no backup for two of their periods; empty: all is well. */
export async function overdueCondition(
  tx: Queryable,
  pod: Pick<Pod, "id" | "status">,
  now: Date,
): Promise<{ kind: string; message: string }[]> {
  if (pod.status !== "active") return [];
  const [overdue] = await tx.query<{ lastAt: Date | null; everyHours: number }>(sql`
    SELECT last.at AS "lastAt", q.every_hours AS "everyHours" FROM cloud_pod_backup_policies q, LATERAL (
      SELECT max(finished_at) AS at FROM cloud_pod_backups WHERE pod_id = q.pod_id AND state = 'available' AND damaged_at IS NULL) last
    WHERE q.pod_id = ${pod.id} AND q.enabled
      AND greatest(q.created_at, last.at) < ${now}::timestamptz - q.every_hours * ${periodsMax} * interval '1 hour'`);
  if (overdue === undefined) return [];
  const last =
    overdue.lastAt === null ? "There is no backup yet" : `The last backup is of ${overdue.lastAt.toISOString()}`;
  return [{ kind: "BackupOverdue", message: `${last}; one is due every ${overdue.everyHours} hours` }];
}
