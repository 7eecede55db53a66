import { stepAfter, type Saga, type Step, type StepOutcome } from "./saga.ts";
import type { Task, TaskState } from "./task.ts";

/** What happens to a task's row after a step. Pure, so that every way on is tested without a database. */
export interface Advance {
  readonly state: TaskState;
  readonly step: string;
  readonly commandId: string | null;
  /** Host that the command is for, when it was written just now. */
  readonly nodeId: string | undefined;
  readonly attempts: number;
  readonly percent: number;
  /** Where the percentage goes while the task waits for its command: from where the step begins to where the next one does. */
  readonly span: { readonly from: number; readonly to: number };
  /** When a worker should look again. */
  readonly runAfterMs: number;
  readonly error: { readonly code: string; readonly message: string } | undefined;
  /** Undefined: there is nothing to tell. */
  readonly message: string | undefined;
  /** Step that the message is about. */
  readonly about: string;
  /** Set when the task has ended. */
  readonly end: "succeeded" | "failed" | "cancelled" | undefined;
}

/** A waiting task is looked at this often even when every hint is lost. */
export const waitingPollMs = 5_000;
const backoffFirstMs = 500;
const backoffMaxMs = 60_000;

/** Full-jitter backoff; `random` is in [0, 1). */
export function backoffMs(attempt: number, random: number): number {
  return Math.ceil(Math.min(backoffMaxMs, backoffFirstMs * 2 ** attempt) * (0.5 + random / 2));
}

/** Decides what follows the outcome of `step`. */
export function advance(saga: Saga, task: Task, step: Step, outcome: StepOutcome, random: number): Advance {
  switch (outcome.kind) {
    case "wait":
      return {
        ...stay(task, {
          state: task.state === "compensating" ? "compensating" : "waiting",
          commandId: outcome.commandId,
          message: outcome.message,
        }),
        ...progressOf(saga, task, step),
        nodeId: outcome.nodeId,
      };
    case "done": {
      const next = stepAfter(saga, step.name);
      return next === undefined ? finish(task, outcome.message ?? "Done") : enter(task, next, outcome.message);
    }
    case "retry":
      if (task.attempts + 1 >= step.attemptsMax)
        return giveUp(saga, task, { code: outcome.code, message: outcome.message });
      return {
        ...stay(task, {
          state: task.state === "compensating" ? "compensating" : "running",
          commandId: null,
          message: `${outcome.message}; trying again`,
        }),
        attempts: task.attempts + 1,
        runAfterMs: backoffMs(task.attempts, random),
      };
    case "fail":
      return giveUp(saga, task, { code: outcome.code, message: outcome.message });
  }
}

/** Ends forward work and begins to take it back; a task that is already taking back ends as failed. */
export function giveUp(saga: Saga, task: Task, error: { code: string; message: string }): Advance {
  const [firstUndo] = saga.undo;
  if (task.state === "compensating" || firstUndo === undefined) {
    return {
      ...stay(task, { state: "failed", commandId: null, message: error.message }),
      error,
      end: endAfterFailure(task),
    };
  }
  return { ...enter({ ...task, state: "compensating" }, firstUndo, error.message), error };
}

function endAfterFailure(task: Task): "failed" | "cancelled" {
  return task.cancelRequestedAt !== null && task.state !== "compensating" ? "cancelled" : "failed";
}

function finish(task: Task, message: string): Advance {
  if (task.state !== "compensating")
    return { ...stay(task, { state: "succeeded", commandId: null, message }), percent: 100, end: "succeeded" };
  const end = task.cancelRequestedAt === null ? "failed" : "cancelled";
  return { ...stay(task, { state: end, commandId: null, message }), end };
}

/** Of work that is taken back the percentage stands still. */
function progressOf(saga: Saga, task: Task, step: Step): Pick<Advance, "percent" | "span"> {
  if (task.state === "compensating") return { percent: task.percent, span: standing(task.percent) };
  const span = { from: step.percent, to: stepAfter(saga, step.name)?.percent ?? 100 };
  return { percent: Math.max(task.percent, step.percent), span };
}

function standing(percent: number): Advance["span"] {
  return { from: percent, to: percent };
}

function enter(task: Task, step: Step, message: string | undefined): Advance {
  const percent = task.state === "compensating" ? task.percent : Math.max(task.percent, step.percent);
  return {
    state: task.state === "compensating" ? "compensating" : "running",
    step: step.name,
    commandId: null,
    nodeId: undefined,
    attempts: 0,
    percent,
    span: standing(percent),
    about: task.step,
    runAfterMs: 0,
    error: undefined,
    message,
    end: undefined,
  };
}

function stay(task: Task, change: { state: TaskState; commandId: string | null; message: string }): Advance {
  return {
    ...change,
    nodeId: undefined,
    step: task.step,
    attempts: task.attempts,
    percent: task.percent,
    span: standing(task.percent),
    about: task.step,
    runAfterMs: change.commandId === null ? 0 : waitingPollMs,
    error: undefined,
    end: change.state === "failed" || change.state === "cancelled" ? change.state : undefined,
  };
}
