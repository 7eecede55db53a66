import type { Database } from "./platform/database.ts";
import { sql, type Sql } from "./platform/sql.ts";

/** Rows of one table that a pass removes; what is left waits for the next pass. */
const rowsAtOnce = 20_000;

/**
 * What has ended and how long it is kept. Bookkeeping of money, the audit log and tasks themselves stay; so does
 * the coverage of samples here: it goes with the samples of its day.
 */
const retentions: readonly { readonly table: string; readonly ended: Sql }[] = [
  { table: "node_samples", ended: sql`at < now() - interval '14 days'` },
  { table: "node_queries", ended: sql`asked_at < now() - interval '1 minute'` },
  { table: "node_events", ended: sql`at < now() - interval '90 days'` },
  { table: "node_findings", ended: sql`state = 'resolved' AND resolved_at < now() - interval '90 days'` },
  { table: "renewal_challenges", ended: sql`expires_at < now() - interval '1 hour'` },
  { table: "placement_failures", ended: sql`at < now() - interval '30 days'` },
  {
    table: "node_commands",
    ended: sql`finished_at < now() - interval '30 days' AND NOT EXISTS (
      SELECT FROM cloud_pod_provisioning_tasks t
      WHERE t.id = task_id AND (t.finished_at IS NULL OR t.finished_at >= now() - interval '30 days'))`,
  },
  {
    table: "cloud_pod_task_events",
    ended: sql`at < now() - interval '90 days' AND EXISTS (
      SELECT FROM cloud_pod_provisioning_tasks t WHERE t.id = task_id AND t.finished_at < now() - interval '90 days')`,
  },
  // Put aside rather than dropped, so that it can be driven again.
  { table: "telemetry_dead_letters", ended: sql`received_at < now() - interval '400 days'` },
  { table: "usage_rejected_samples", ended: sql`received_at < now() - interval '400 days'` },
];

/** Removes what is older than it is kept. */
export async function pruneHistory(db: Database): Promise<void> {
  for (const { table, ended } of retentions) {
    await db.execute({
      text: `DELETE FROM ${table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM ${table} WHERE ${ended.text} LIMIT ${rowsAtOnce}))`,
      values: [],
    });
  }
}
