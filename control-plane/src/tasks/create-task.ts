import type { TaskType } from "@cloudpods/shared/task-types";
import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import { violatedConstraint, type Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { taskColumns, type Task } from "./task.ts";

/** What the caller decides about a new task. */
export interface NewTask {
  readonly id?: string;
  readonly tenantId: string;
  readonly podId: string;
  readonly type: TaskType;
  /** First step; a step whose command the caller already sent begins as waiting. */
  readonly step: string;
  readonly commandId?: string;
  readonly percent?: number;
  /** Of a step whose command was sent: where the next one begins. */
  readonly percentTo?: number;
  readonly input: Readonly<Record<string, unknown>>;
  readonly deadlineMs: number;
  readonly requestedBy: string;
  readonly requestId: string;
  readonly message: string;
}

/**
 * Puts a task into the queue in the caller's transaction.
 * @throws DomainError `POD_BUSY` when other work on the pod is not finished.
 */
export async function createTask(tx: Queryable, task: NewTask): Promise<Task> {
  const state = task.commandId === undefined ? "queued" : "waiting";
  try {
    const [row] = await tx.query<Task>(sql`
      WITH t AS (
        INSERT INTO cloud_pod_provisioning_tasks AS t
          (id, tenant_id, pod_id, type, state, step, input, command_id, percent, percent_from, percent_to, deadline_at, requested_by, request_id, last_seq)
        VALUES (${task.id ?? newId()}, ${task.tenantId}, ${task.podId}, ${task.type}, ${state}, ${task.step}, ${JSON.stringify(task.input)},
          ${task.commandId ?? null}, ${task.percent ?? 0}, ${task.percent ?? 0}, ${task.percentTo ?? task.percent ?? 0}, now() + ${task.deadlineMs} * interval '1 ms', ${task.requestedBy}, ${task.requestId}, 1)
        RETURNING *),
      event AS (
        INSERT INTO cloud_pod_task_events (task_id, seq, tenant_id, state, step, percent, message)
        SELECT id, 1, tenant_id, state, step, percent, ${task.message} FROM t)
      SELECT ${taskColumns} FROM t`);
    if (row === undefined) throw new Error("a task that was inserted was not returned");
    return row;
  } catch (error) {
    if (violatedConstraint(error) === "one_open_task_per_pod") {
      throw podBusy(error);
    }
    throw error;
  }
}

/** The refusal of work on a pod on which other work is not finished. */
export function podBusy(cause?: unknown): DomainError {
  return new DomainError(
    "conflict",
    "POD_BUSY",
    "Other work on this pod is not finished yet; wait for it or cancel it.",
    {
      retryAfterSeconds: 5,
      cause,
    },
  );
}
