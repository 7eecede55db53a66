import type { TaskType } from "@cloudpods/shared/task-types";
import { DomainError } from "@cloudpods/shared/errors";
import { insertCommand } from "../nodes/send-command.ts";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { podBusy } from "./create-task.ts";
import { appendTaskEvent } from "./task-events.ts";
import { isFinished, taskColumns, type Task } from "./task.ts";

/**
 * A task by id, whosever it is.
 * @throws DomainError `TASK_NOT_FOUND`
 */
export async function findTask(tx: Queryable, id: string): Promise<Task> {
  return await requireTask(tx, sql`t.id = ${id}`);
}

/**
 * A tenant's task.
 * @throws DomainError `TASK_NOT_FOUND`, also for a task of somebody else
 */
export async function findOwnTask(tx: Queryable, tenantId: string, id: string, lock = false): Promise<Task> {
  return await requireTask(tx, sql`t.tenant_id = ${tenantId} AND t.id = ${id} ${lock ? sql`FOR UPDATE` : sql``}`);
}

async function requireTask(tx: Queryable, which: Sql): Promise<Task> {
  const [task] = await tx.query<Task>(sql`SELECT ${taskColumns} FROM cloud_pod_provisioning_tasks t WHERE ${which}`);
  if (task === undefined) throw new DomainError("not-found", "TASK_NOT_FOUND", "There is no such task.");
  return task;
}

/** What a cancellation did to the host's part of the work. */
export interface Cancellation {
  readonly task: Task;
  /** Host that must be told to stop; undefined when nothing was under way there. */
  readonly nodeId: string | undefined;
}

/** From these steps of a restore on, the container that is replaced is not there any more. */
const pastReturn = new Set(["restore", "start"]);

/**
 * Asks a task to end. What was done is taken back by its saga; work that is past the point of return ends
 * as succeeded. `operatorsSteps`: for an operator, as of a saga.
 * @throws DomainError `TASK_FINISHED`, `TASK_NOT_CANCELLABLE`, `TASK_NOT_YOURS`
 */
export async function cancelTask(
  tx: Queryable,
  tenantId: string,
  id: string,
  operatorsSteps: (type: TaskType) => readonly string[] | undefined = () => undefined,
): Promise<Cancellation> {
  const { podId } = await findOwnTask(tx, tenantId, id);
  // Pod before task, as everyone who works on a pod locks them: the command that stops the host refers to the pod.
  await tx.query(sql`SELECT FROM cloud_pods WHERE id = ${podId} FOR UPDATE`);
  const task = await findOwnTask(tx, tenantId, id, true);
  if (isFinished(task.state))
    throw new DomainError("wrong-state", "TASK_FINISHED", `The task has ${task.state} already.`);
  if (task.type === "destroy" || task.type === "suspend" || task.state === "compensating")
    throw notCancellable(task, "What is being removed, suspended or taken back is carried to its end.");
  if (task.type === "restore" && pastReturn.has(task.step)) {
    const message =
      "The pod's container is being replaced by the backup: ended now, it would be gone. The restore is carried to its end.";
    throw notCancellable(task, message);
  }
  const steps = isCustomersWork(task) ? undefined : operatorsSteps(task.type);
  if (steps === undefined) requireCustomersWork(task, "cancel");
  else if (!steps.includes(task.step)) throw notCancellable(task, "What has come so far is carried to its end.");
  return await askToEnd(tx, task);
}

function notCancellable({ step }: Task, message: string): DomainError {
  return new DomainError("wrong-state", "TASK_NOT_CANCELLABLE", message, { details: { step } });
}

/** Asks an open task, whose row is locked, to end; whoever asked for it. */
export async function askToEnd(tx: Queryable, task: Task): Promise<Cancellation> {
  await tx.execute(sql`
    UPDATE cloud_pod_provisioning_tasks SET cancel_requested_at = coalesce(cancel_requested_at, now()), run_after = now() WHERE id = ${task.id}`);
  await appendTaskEvent(tx, { ...task, message: "Cancellation requested" });
  const nodeId = await stopCommand(tx, task);
  return { task: await findTask(tx, task.id), nodeId };
}

/**
 * Work that the system does by itself goes its own way.
 * @throws DomainError `TASK_NOT_YOURS`
 */
export function requireCustomersWork(task: Pick<Task, "requestedBy">, deed: "cancel" | "try again"): void {
  if (isCustomersWork(task)) return;
  throw new DomainError(
    "forbidden",
    "TASK_NOT_YOURS",
    `This work was not asked for by a customer and is not his to ${deed}.`,
  );
}

function isCustomersWork({ requestedBy }: Pick<Task, "requestedBy">): boolean {
  return !requestedBy.startsWith("system:");
}

/** Tells the host to stop working on what the task waits for. */
export async function stopCommand(tx: Queryable, task: Task): Promise<string | undefined> {
  if (task.commandId === null) return undefined;
  // A command that no host has heard of yet ends here; the row's lock decides against the gateway.
  const unsent = await tx.execute(sql`
    UPDATE node_commands SET state = 'cancelled', error_code = 'CANCELLED', finished_at = now()
    WHERE id = ${task.commandId} AND state = 'pending'`);
  if (unsent > 0) return undefined;
  const [command] = await tx.query<{ nodeId: string; vmid: number; generation: bigint; revision: bigint }>(sql`
    SELECT c.node_id AS "nodeId", p.vmid, c.generation, c.revision FROM node_commands c JOIN cloud_pods p ON p.id = c.pod_id
    WHERE c.id = ${task.commandId} AND c.finished_at IS NULL`);
  if (command === undefined) return undefined;
  await insertCommand(tx, {
    ...command,
    tenantId: task.tenantId,
    podId: task.podId,
    op: { $case: "cancelCommand", value: { commandId: task.commandId } },
  });
  return command.nodeId;
}

/** Moves the end of the time that an open task has, should it come before the given time from now. */
export async function allowMoreTime(tx: Queryable, { id }: Pick<Task, "id">, ms: number): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_provisioning_tasks SET deadline_at = greatest(deadline_at, now() + ${ms} * interval '1 ms') WHERE id = ${id}`);
}

/** Says of a task that has failed what else its owner must know. */
export async function explainFailure(tx: Queryable, { id }: Pick<Task, "id">, message: string): Promise<void> {
  await tx.execute(sql`UPDATE cloud_pod_provisioning_tasks SET error_message = ${message} WHERE id = ${id}`);
}

/** The refusal of work that newer work has overtaken. */
export function outdated(): DomainError {
  return new DomainError(
    "wrong-state",
    "TASK_OUTDATED",
    "The pod has changed since this task failed; ask for the work anew.",
  );
}

/**
 * Puts a failed task back into the queue, at its first step.
 * @throws DomainError `TASK_NOT_FAILED`; `TASK_OUTDATED` when there was other work on the pod since; `POD_BUSY`
 */
export async function requeueTask(tx: Queryable, task: Task, firstStep: string, deadlineMs: number): Promise<Task> {
  if (task.state !== "failed") {
    throw new DomainError(
      "wrong-state",
      "TASK_NOT_FAILED",
      `Only a failed task can be tried again; this one is ${task.state}.`,
    );
  }
  const [newer] = await tx.query<{ open: boolean }>(sql`
    SELECT bool_or(state NOT IN ('succeeded', 'failed', 'cancelled')) AS open FROM cloud_pod_provisioning_tasks
    WHERE pod_id = ${task.podId} AND id > ${task.id} HAVING count(*) > 0`);
  if (newer !== undefined) throw newer.open ? podBusy() : outdated();
  await tx.execute(sql`
    UPDATE cloud_pod_provisioning_tasks SET state = 'queued', step = ${firstStep}, command_id = NULL, attempts = 0, percent = 0,
      run_after = now(), deadline_at = now() + ${deadlineMs} * interval '1 ms', cancel_requested_at = NULL,
      error_code = NULL, error_message = NULL, finished_at = NULL
    WHERE id = ${task.id}`);
  await appendTaskEvent(tx, {
    id: task.id,
    state: "queued",
    step: firstStep,
    percent: 0,
    message: "Tried again on request",
  });
  return await findTask(tx, task.id);
}
