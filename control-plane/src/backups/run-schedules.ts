import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Logger } from "pino";
import { violatedConstraint, type Database, type Transaction } from "../platform/database.ts";
import { eachByItself } from "../platform/each-by-itself.ts";
import { sql } from "../platform/sql.ts";
import type { PodHints } from "../pods/pod-hints.ts";
import { lockPodById } from "../pods/pod.ts";
import { createTask } from "../tasks/create-task.ts";
import type { Task } from "../tasks/task.ts";
import { makeArchiveStep } from "./archive-steps.ts";
import { backupDeadlineMs } from "./back-up-pod.saga.ts";
import { insertBackup } from "./request-backup.ts";
import { nextBackupAt } from "./schedule.ts";

/** What a pass of the schedule did. */
export interface ScheduleReport {
  readonly begun: number;
  /** Their hosts have no storage for backups; they are looked at again in an hour. */
  readonly withoutStorage: number;
}

const batchMax = 50;

/**
 * Begins the backups that are due: one at a time on each host that is there, the longest due first. A pod on which
 * other work is done waits for the next pass.
 */
export async function runSchedules(
  { db, log, hints }: { readonly db: Database; readonly log: Logger; readonly hints: PodHints },
  now: Date,
): Promise<ScheduleReport> {
  const due = await db.query<{ podId: string }>(sql`
    SELECT podId AS "podId" FROM (
      SELECT DISTINCT ON (p.node_id) p.id AS podId, q.next_at FROM cloud_pod_backup_policies q JOIN cloud_pods p ON p.id = q.pod_id
      JOIN node_status s ON s.node_id = p.node_id
      WHERE q.enabled AND q.next_at <= ${now} AND p.status = 'active' AND s.state IN ('online', 'degraded') AND s.session_connected
        -- A host makes one archive at a time, and those of pods that leave it come first.
        AND NOT EXISTS (SELECT FROM node_drains d JOIN node_drain_pods l ON l.drain_id = d.id AND l.state IN ('claimed', 'moving')
          WHERE d.node_id = p.node_id AND d.finished_at IS NULL)
        AND NOT EXISTS (SELECT FROM cloud_pod_backups b WHERE b.node_id = p.node_id AND b.kind = 'scheduled' AND b.state = 'running')
        AND NOT EXISTS (SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = p.id AND t.state NOT IN ('succeeded', 'failed', 'cancelled'))
      ORDER BY p.node_id, q.next_at) first
    ORDER BY next_at LIMIT ${batchMax}`);
  const message = "a backup that is due could not be begun";
  const telling = { log, message, fields: ({ podId }: { podId: string }) => ({ podId }) };
  let begun = 0;
  let withoutStorage = 0;
  await eachByItself(due, telling, async ({ podId }) => {
    try {
      const task = await db.transaction((tx) => beginScheduled(tx, podId, now));
      if (task === undefined) return;
      begun += 1;
      hints.workQueued(task.id, null);
    } catch (error) {
      // Other work has come first, or another backup of the host.
      if (error instanceof DomainError && error.code === "POD_BUSY") return;
      if (violatedConstraint(error) === "one_scheduled_backup_per_node") return;
      await putOff(db, podId, now);
      if (!(error instanceof DomainError) || error.code !== "NO_BACKUP_STORAGE") throw error;
      withoutStorage += 1;
    }
  });
  return { begun, withoutStorage };
}

/** The next pass shall have another pod of the host to begin with. */
async function putOff(db: Database, podId: string, now: Date): Promise<void> {
  await db.execute(sql`
    UPDATE cloud_pod_backup_policies SET next_at = ${now}::timestamptz + interval '1 hour' WHERE pod_id = ${podId} AND next_at <= ${now}`);
}

async function beginScheduled(tx: Transaction, podId: string, now: Date): Promise<Task | undefined> {
  const pod = await lockPodById(tx, podId);
  const [policy] = await tx.query<{ everyHours: number }>(sql`
    SELECT every_hours AS "everyHours" FROM cloud_pod_backup_policies WHERE pod_id = ${podId} AND enabled AND next_at <= ${now} FOR UPDATE`);
  if (policy === undefined || pod.status !== "active") return undefined;
  const backupId = newId();
  const task = await createTask(tx, {
    tenantId: pod.tenantId,
    podId,
    type: "backup",
    step: makeArchiveStep.name,
    input: { backupId },
    deadlineMs: backupDeadlineMs,
    requestedBy: "system:backups",
    requestId: newId(),
    message: "A backup is due",
  });
  await insertBackup(tx, pod, { id: backupId, kind: "scheduled", taskId: task.id });
  await tx.execute(sql`
    UPDATE cloud_pod_backup_policies SET next_at = ${nextBackupAt(podId, policy.everyHours, now)} WHERE pod_id = ${podId}`);
  return task;
}
