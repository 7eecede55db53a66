import type { TaskType } from "@cloudpods/shared/task-types";
import type { Transaction } from "../platform/database.ts";
import type { Task } from "./task.ts";

/** The end of a command on a host, as its row has it. */
export interface FinishedCommand {
  readonly id: string;
  readonly state:
    | "succeeded"
    | "failed"
    | "stale"
    | "superseded"
    | "expired"
    | "interrupted"
    | "cancelled"
    | "unsupported";
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly retryable: boolean | null;
  /** cloudpods.agent.v1.ContainerObservation as protobuf JSON; null when nothing was seen. */
  readonly observation: unknown;
  /** cloudpods.agent.v1.BackupObservation as protobuf JSON; null when no archive was looked at. */
  readonly backup: unknown;
  /** cloudpods.agent.v1.MoveObservation as protobuf JSON; null when nothing was moved or it is not known where to. */
  readonly move: unknown;
}

/** A command that its host has not answered yet. */
export interface OpenCommand {
  readonly id: string;
  /** `running`: the host has told that it does something for it. */
  readonly state: "pending" | "sent" | "accepted" | "running";
}

/** What a step may use. Everything it does happens in `tx`, together with the task's progress. */
export interface StepContext {
  readonly tx: Transaction;
  readonly task: Task;
  /** The one instant of this decision. */
  readonly now: Date;
}

/** How a step ended. */
export type StepOutcome =
  /** On to the next step. */
  | { readonly kind: "done"; readonly message: string | undefined }
  /** Wait until the command on the host has finished, then call `resume`. */
  | { readonly kind: "wait"; readonly commandId: string; readonly nodeId: string; readonly message: string }
  /** Try the step again later, as often as the step allows. */
  | { readonly kind: "retry"; readonly code: string; readonly message: string }
  /** Give up: take back what was done. */
  | { readonly kind: "fail"; readonly code: string; readonly message: string };

/** Of a step that had nothing to do: on to the next one, and nothing is told. */
export const notNeeded = { kind: "done", message: undefined } as const satisfies StepOutcome;

/** One named step of a saga. Running it twice must be as good as once. */
export interface Step {
  readonly name: string;
  /** Progress of the task when the step begins. */
  readonly percent: number;
  /** Tries before the step counts as failed. */
  readonly attemptsMax: number;
  /** Begins the step. */
  begin(context: StepContext): Promise<StepOutcome>;
  /** Asked now and then while the command is open: a failure ends the waiting and takes back what was done. */
  watch?(context: StepContext, command: OpenCommand): Promise<Extract<StepOutcome, { kind: "fail" }> | undefined>;
  /** Goes on after the command that `begin` waited for; absent when `begin` never waits. */
  resume?(context: StepContext, command: FinishedCommand): Promise<StepOutcome>;
}

/** How one type of task is done and undone. */
export interface Saga {
  readonly type: TaskType;
  /** From its creation; after that the task is given up. */
  readonly deadlineMs: number;
  readonly steps: readonly [Step, ...Step[]];
  /** Steps that take back the effects, in order, after the final failure or a cancellation. */
  readonly undo: readonly Step[];
  /** Steps at which an operator may cancel work that no customer has asked for; undefined: at none. */
  readonly operatorsMayCancelAt?: readonly string[];
  /** Called in the transaction that ends the task, whatever its end. */
  finish(context: StepContext, end: "succeeded" | "failed" | "cancelled"): Promise<void>;
}

/** Prefix of the step column while a task is compensating. */
export const undoPrefix = "undo-";

/** The step that a task is at, or undefined when the saga does not know it (a newer replica's task). */
export function currentStep(saga: Saga, task: Pick<Task, "state" | "step">): Step | undefined {
  const steps = task.state === "compensating" ? saga.undo : saga.steps;
  return steps.find((step) => step.name === task.step);
}

/** The step after the named one in the same direction. */
export function stepAfter(saga: Saga, name: string): Step | undefined {
  for (const steps of [saga.steps, saga.undo]) {
    const index = steps.findIndex((step) => step.name === name);
    if (index >= 0) return steps[index + 1];
  }
  return undefined;
}
