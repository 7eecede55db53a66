import type { TaskType } from "@cloudpods/shared/task-types";
import { DomainError } from "@cloudpods/shared/errors";
import type { Logger } from "pino";
import type { Database, Transaction } from "../platform/database.ts";
import { prepared, sql } from "../platform/sql.ts";
import { advance, giveUp, waitingPollMs, type Advance } from "./advance-task.ts";
import { currentStep, type FinishedCommand, type OpenCommand, type Saga, type Step, type StepOutcome } from "./saga.ts";
import { stopCommand } from "./change-task.ts";
import { appendTaskEvent } from "./task-events.ts";
import { isFinished, taskColumns, type Task } from "./task.ts";

/** Places between two commits at which a process may die; tests kill it at each. */
export type Boundary = "claimed" | "stepped" | "committed";

/** What a worker needs. */
export interface TaskWorkerOptions {
  readonly db: Database;
  readonly workerId: string;
  readonly sagas: readonly Saga[];
  readonly log: Logger;
  /** Called after a commit that sent a command or ended a task, to wake who waits for it. */
  readonly onCommitted: (task: Task, change: Advance) => void;
  /** How many tasks one worker has in hand at once. */
  readonly concurrencyMax?: number;
  readonly leaseMs?: number;
  readonly pollMs?: number;
  readonly onBoundary?: (boundary: Boundary, task: Task) => Promise<void>;
}

/** A running worker. */
export interface TaskWorker {
  /** Looks for work now instead of at the next poll. */
  wake(): void;
  /** Takes no new work and waits for what is in hand; leases of the rest run out. */
  stop(): Promise<void>;
}

/** Starts a worker. Many workers, in one process or many, share the queue. */
export function startTaskWorker(options: TaskWorkerOptions): TaskWorker {
  const sagas = new Map<TaskType, Saga>(options.sagas.map((saga) => [saga.type, saga]));
  const inHand = new Set<Promise<void>>();
  const concurrencyMax = options.concurrencyMax ?? 8;
  let stopping = false;
  let looking = false;
  let again = false;
  let timer: NodeJS.Timeout | undefined;

  const look = async (): Promise<void> => {
    if (looking) {
      again = true;
      return;
    }
    looking = true;
    clearTimeout(timer);
    try {
      do {
        again = false;
        while (!stopping && inHand.size < concurrencyMax) {
          const task = await claimTask(options);
          if (task === undefined) break;
          const work = carry(options, sagas, task).finally(() => {
            inHand.delete(work);
            if (!stopping) void look();
          });
          inHand.add(work);
        }
      } while (again && !stopping);
    } catch (error) {
      options.log.warn({ err: error }, "task worker cannot reach the queue");
    } finally {
      looking = false;
      if (!stopping) timer = setTimeout(() => void look(), options.pollMs ?? 1_000);
    }
  };
  void look();
  return {
    wake: () => void look(),
    async stop() {
      stopping = true;
      clearTimeout(timer);
      await Promise.allSettled(inHand);
      clearTimeout(timer);
    },
  };
}

/** Takes the task that is due longest: new, due again, its command finished, or its worker dead. */
async function claimTask(options: TaskWorkerOptions): Promise<Task | undefined> {
  // Planning these statements again for each look and each step was half of what the queue cost the database.
  const statement = sql`
    UPDATE cloud_pod_provisioning_tasks AS t
    SET worker_id = ${options.workerId}, lease_until = now() + ${options.leaseMs ?? 30_000} * interval '1 ms',
        run_after = now() + ${options.leaseMs ?? 30_000} * interval '1 ms'
    WHERE t.id = (
      SELECT c.id FROM cloud_pod_provisioning_tasks c
      WHERE c.state IN ('queued', 'running', 'waiting', 'compensating')
        AND (c.run_after <= now() OR EXISTS (
          SELECT FROM node_commands n WHERE n.id = c.command_id AND n.finished_at IS NOT NULL))
        AND (c.lease_until IS NULL OR c.lease_until < now())
      ORDER BY c.run_after FOR UPDATE SKIP LOCKED LIMIT 1)
    RETURNING ${taskColumns}`;
  const [task] = await options.db.query<Task>(prepared(statement));
  return task;
}

/** Runs steps of one task until it waits, must wait before a retry, or has ended. */
async function carry(options: TaskWorkerOptions, sagas: ReadonlyMap<TaskType, Saga>, claimed: Task): Promise<void> {
  await options.onBoundary?.("claimed", claimed);
  try {
    for (;;) {
      const change = await stepOnce(options, sagas, claimed).catch((error: unknown) =>
        countThrownStep(options, sagas, claimed, error),
      );
      if (change === undefined || change.commandId !== null || change.runAfterMs > 0 || change.end !== undefined)
        return;
    }
  } catch (error) {
    // Not even the failure could be written down, as when the database is away: the lease is given back later.
    options.log.warn({ err: error, taskId: claimed.id }, "a task is left for later");
    await postpone(options, claimed.id).catch(() => {});
  }
}

/** The step's transaction is rolled back. A try that threw is a try: without counting it there would be no end. */
async function countThrownStep(
  options: TaskWorkerOptions,
  sagas: ReadonlyMap<TaskType, Saga>,
  claimed: Task,
  error: unknown,
): Promise<Advance | undefined> {
  const refusal = error instanceof DomainError ? error : undefined;
  const fields = { err: error, taskId: claimed.id };
  if (refusal === undefined) options.log.error(fields, "a step of a task threw");
  else options.log.info(fields, "a step of a task was refused");
  return await stepOnce(options, sagas, claimed, {
    kind: "retry",
    code: refusal?.code ?? "STEP_FAILED",
    message: refusal?.message ?? "The step failed on our side",
  });
}

/** One step in one transaction: its effects and the task's progress are committed together or not at all. */
async function stepOnce(
  options: TaskWorkerOptions,
  sagas: ReadonlyMap<TaskType, Saga>,
  claimed: Task,
  thrown?: StepOutcome,
): Promise<Advance | undefined> {
  const result = await options.db.transaction(async (tx) => {
    // Pod before task, as everyone who asks for work on a pod locks them.
    await tx.execute(prepared(sql`SELECT FROM cloud_pods WHERE id = ${claimed.podId} FOR UPDATE`));
    const task = await lockOwnTask(tx, claimed.id, options.workerId);
    const saga = task === undefined ? undefined : sagas.get(task.type);
    const step = task === undefined || saga === undefined ? undefined : currentStep(saga, task);
    // Another worker took over after our lease, or a newer replica knows what this one does not.
    if (task === undefined || saga === undefined || step === undefined) return undefined;
    const now = new Date();
    const outcome = thrown ?? (await runStep(tx, task, step, now));
    const change = outcome === "keep-waiting" ? undefined : decide(saga, task, step, outcome, now);
    if (change === undefined) await keepWaiting(tx, task);
    else {
      // What is given up must not happen hours later, when the host is back.
      if (task.commandId !== null && change.commandId === null) await stopCommand(tx, task);
      await applyChange(tx, task, change);
      if (change.end !== undefined) await saga.finish({ tx, task: ended(task, change), now }, change.end);
    }
    await options.onBoundary?.("stepped", task);
    return { task, change };
  });
  if (result?.change === undefined) return undefined;
  tell(options.log, result.task, result.change);
  await options.onBoundary?.("committed", result.task);
  options.onCommitted(result.task, result.change);
  return result.change;
}

function tell(log: Logger, { id, requestId, podId, type, step }: Task, change: Advance): void {
  const { state, step: next, attempts, error, end } = change;
  const line = { taskId: id, requestId, podId, type, step, state, next, attempts, end, error };
  if (end === "failed") log.warn(line, "a task has failed");
  else log.info(line, end === undefined ? "a step of a task is done or waits" : "a task has ended");
}

function decide(saga: Saga, task: Task, step: Step, outcome: StepOutcome, now: Date): Advance {
  const forward = task.state !== "compensating";
  if (forward && outcome.kind !== "done" && task.cancelRequestedAt !== null) {
    return giveUp(saga, task, { code: "CANCELLED", message: "Cancelled on request" });
  }
  if (forward && outcome.kind === "retry" && task.deadlineAt <= now) {
    return giveUp(saga, task, { code: "TASK_DEADLINE", message: `Not done in time; last: ${outcome.message}` });
  }
  return advance(saga, task, step, outcome, Math.random());
}

async function runStep(tx: Transaction, task: Task, step: Step, now: Date): Promise<StepOutcome | "keep-waiting"> {
  const context = { tx, task, now };
  if (task.commandId === null) {
    if (task.state !== "compensating" && task.cancelRequestedAt !== null) {
      return { kind: "fail", code: "CANCELLED", message: "Cancelled on request" };
    }
    return await step.begin(context);
  }
  const { open, finished: command } = await readCommand(tx, task.commandId);
  if (open !== undefined) {
    const overdue = task.deadlineAt <= now && task.state !== "compensating";
    if (overdue) return { kind: "fail", code: "TASK_DEADLINE", message: "The host did not finish in time" };
    return (await step.watch?.(context, open)) ?? "keep-waiting";
  }
  if (command === undefined || step.resume === undefined)
    return { kind: "retry", code: "COMMAND_LOST", message: "The command is gone" };
  return await step.resume(context, command);
}

/** Neither when the command is gone. */
async function readCommand(
  tx: Transaction,
  id: string,
): Promise<{ readonly open?: OpenCommand; readonly finished?: FinishedCommand }> {
  const [open] = await tx.query<OpenCommand>(
    sql`SELECT id, state FROM node_commands WHERE id = ${id} AND finished_at IS NULL`,
  );
  if (open !== undefined) return { open };
  const [finished] = await tx.query<FinishedCommand>(sql`
    SELECT id, state, error_code AS "errorCode", error_message AS "errorMessage", retryable, observation, backup, move
    FROM node_commands WHERE id = ${id} AND finished_at IS NOT NULL`);
  return finished === undefined ? {} : { finished };
}

async function lockOwnTask(tx: Transaction, id: string, workerId: string): Promise<Task | undefined> {
  const statement = sql`
    SELECT ${taskColumns} FROM cloud_pod_provisioning_tasks t WHERE t.id = ${id} AND t.worker_id = ${workerId} FOR UPDATE`;
  const [task] = await tx.query<Task>(prepared(statement));
  return task === undefined || isFinished(task.state) ? undefined : task;
}

async function applyChange(tx: Transaction, task: Task, change: Advance): Promise<void> {
  const release = change.commandId !== null || change.runAfterMs > 0 || change.end !== undefined;
  const statement = sql`
    UPDATE cloud_pod_provisioning_tasks SET
      state = ${change.end ?? change.state}, step = ${change.step}, command_id = ${change.commandId}, attempts = ${change.attempts},
      percent = ${change.percent}, percent_from = ${change.span.from}, percent_to = ${change.span.to}, run_after = now() + ${change.runAfterMs} * interval '1 ms',
      error_code = coalesce(${change.error?.code ?? null}, error_code),
      error_message = coalesce(${change.error?.message ?? null}, error_message),
      lease_until = CASE WHEN ${release} THEN NULL ELSE lease_until END,
      finished_at = CASE WHEN ${change.end !== undefined} THEN now() END, updated_at = now()
    WHERE id = ${task.id}`;
  await tx.execute(prepared(statement));
  if (change.message === undefined) return;
  await appendTaskEvent(tx, {
    id: task.id,
    state: change.end ?? change.state,
    step: change.about,
    percent: change.percent,
    message: change.message,
  });
}

async function keepWaiting(tx: Transaction, task: Task): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_provisioning_tasks SET lease_until = NULL, run_after = now() + ${waitingPollMs} * interval '1 ms' WHERE id = ${task.id}`);
}

async function postpone(options: TaskWorkerOptions, taskId: string): Promise<void> {
  await options.db.execute(sql`
    UPDATE cloud_pod_provisioning_tasks SET lease_until = NULL, run_after = now() + interval '2 s'
    WHERE id = ${taskId} AND worker_id = ${options.workerId}`);
}

/** The task as its row is now that the change is written. */
function ended(task: Task, change: Advance): Task {
  return {
    ...task,
    state: change.end ?? change.state,
    step: change.step,
    errorCode: change.error?.code ?? task.errorCode,
    errorMessage: change.error?.message ?? task.errorMessage,
  };
}
