import type { TaskType } from "@cloudpods/shared/task-types";
import { sql, type Sql } from "../platform/sql.ts";

/**
 * ```
 * queued → running ⇄ waiting → succeeded
 *             └→ compensating → failed | cancelled
 * ```
 * `waiting` waits for a command on a host; `compensating` takes back what was done.
 */
export const taskStates = ["queued", "running", "waiting", "compensating", "succeeded", "failed", "cancelled"] as const;
export type TaskState = (typeof taskStates)[number];

/** Whether nothing more will happen to a task. */
export function isFinished(state: TaskState): boolean {
  return state === "succeeded" || state === "failed" || state === "cancelled";
}

/** One row of the queue. */
export interface Task {
  readonly id: string;
  readonly tenantId: string;
  readonly podId: string;
  readonly type: TaskType;
  readonly state: TaskState;
  readonly step: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly commandId: string | null;
  /** Failed tries of the current step. */
  readonly attempts: number;
  readonly deadlineAt: Date;
  readonly percent: number;
  readonly cancelRequestedAt: Date | null;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly lastSeq: number;
  readonly requestedBy: string;
  readonly requestId: string | null;
  readonly workerId: string | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly finishedAt: Date | null;
}

/** Columns of `Task`, for SELECT and RETURNING; `t` names the table. */
export const taskColumns: Sql = sql`t.id, t.tenant_id AS "tenantId", t.pod_id AS "podId", t.type, t.state, t.step, t.input,
  t.command_id AS "commandId", t.attempts, t.deadline_at AS "deadlineAt", t.percent,
  t.cancel_requested_at AS "cancelRequestedAt", t.error_code AS "errorCode", t.error_message AS "errorMessage",
  t.last_seq AS "lastSeq", t.requested_by AS "requestedBy", t.request_id AS "requestId", t.worker_id AS "workerId",
  t.created_at AS "createdAt", t.updated_at AS "updatedAt", t.finished_at AS "finishedAt"`;
