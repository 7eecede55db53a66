import type { Queryable } from "../platform/database.ts";
import { prepared, sql } from "../platform/sql.ts";
import type { Task } from "./task.ts";

/** One line of a task's story; `seq` rises by one per task, in the order of commits. */
export interface TaskEvent {
  readonly seq: number;
  readonly at: Date;
  readonly state: string;
  readonly step: string;
  readonly percent: number;
  readonly message: string;
}

/**
 * Adds an event and moves the task's `last_seq`. The task's row lock is what orders the numbers, so the
 * UPDATE comes first and the caller's transaction holds it to the end.
 */
export async function appendTaskEvent(
  tx: Queryable,
  event: Pick<Task, "id" | "state" | "step" | "percent"> & { readonly message: string },
): Promise<void> {
  const statement = sql`
    WITH numbered AS (
      UPDATE cloud_pod_provisioning_tasks SET last_seq = last_seq + 1, updated_at = now() WHERE id = ${event.id}
      RETURNING id, last_seq, tenant_id)
    INSERT INTO cloud_pod_task_events (task_id, seq, tenant_id, state, step, percent, message)
    SELECT id, last_seq, tenant_id, ${event.state}, ${event.step}, ${event.percent}, ${event.message} FROM numbered`;
  await tx.execute(prepared(statement));
}

/** Events of a tenant's task after `afterSeq`, oldest first, at most 200. */
export async function readTaskEvents(
  db: Queryable,
  { tenantId, taskId }: { readonly tenantId: string; readonly taskId: string },
  afterSeq: number,
): Promise<TaskEvent[]> {
  return await db.query<TaskEvent>(sql`
    SELECT seq, at, state, step, percent, message FROM cloud_pod_task_events
    WHERE tenant_id = ${tenantId} AND task_id = ${taskId} AND seq > ${afterSeq} ORDER BY seq LIMIT 200`);
}

/**
 * Passes on how far a host is with the command that a task waits for, as a part of the way from this step to the next. The
 * rest of it is gone when the result is there.
 */
export async function recordCommandProgress(
  tx: Queryable,
  progress: { readonly commandId: string; readonly step: string; readonly percent: number; readonly detail: string },
): Promise<void> {
  const { step, detail } = progress;
  const message = detail === "" || callsProgram.test(detail) ? step : detail;
  await tx.execute(sql`
    WITH numbered AS (
      UPDATE cloud_pod_provisioning_tasks SET last_seq = last_seq + 1, updated_at = now(), percent = CASE state
        WHEN 'waiting' THEN greatest(percent, least(99, percent_from + (percent_to - percent_from) * ${progress.percent}::integer / 100)) ELSE percent END
      WHERE command_id = ${progress.commandId} AND state IN ('waiting', 'compensating')
      RETURNING id, last_seq, tenant_id, state, step, percent)
    INSERT INTO cloud_pod_task_events (task_id, seq, tenant_id, state, step, percent, message)
    SELECT id, last_seq, tenant_id, state, step, percent, ${message} FROM numbered`);
}

/** A line in which a program repeats how it was called; its options are for who runs the host. */
const callsProgram = /(?:^|\s)--[a-z]/;
