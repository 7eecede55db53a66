import {
  CommandOutcome,
  type CommandResult,
  type ContainerObservation,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { AgentError, messageOf } from "../agent-error.ts";
import { ContainerFailure } from "../containers/container-failure.ts";
import type { ContainerOutcome } from "../containers/containers.ts";

/** How an execution ended, without the times. */
export type ExecutionEnd = Pick<CommandResult, "outcome" | "error" | "observation" | "commandLines"> &
  Partial<Pick<CommandResult, "backup" | "move">>;

/** The wanted state was seen. */
export function succeeded(
  observation: ContainerObservation | undefined,
  commandLines: readonly string[] = [],
): ExecutionEnd {
  return succeededWith({ observation, commandLines });
}

/** What was wanted was seen, with everything that a deed found. */
export function succeededWith({ observation, commandLines, backup, move }: ContainerOutcome): ExecutionEnd {
  const outcome = CommandOutcome.COMMAND_OUTCOME_SUCCEEDED;
  return { outcome, error: undefined, observation, backup, move, commandLines: [...commandLines] };
}

/** The end of a command that failed with `error`. */
export function endOfFailure(error: unknown): ExecutionEnd {
  const failure = error instanceof ContainerFailure ? error : undefined;
  const { code, retryable } = error instanceof AgentError ? error : { code: "INTERNAL_ERROR", retryable: true };
  return {
    outcome: outcomeOf(failure),
    error: { code, message: messageOf(error), retryable },
    observation: failure?.observation,
    move: failure?.move,
    commandLines: [...(failure?.commandLines ?? [])],
  };
}

/** An end without success that the agent decides itself. Only an interruption is worth a repetition. */
export function endWithout(
  outcome: CommandOutcome,
  code: string,
  message: string,
  observation?: ContainerObservation,
): ExecutionEnd {
  const retryable = outcome === CommandOutcome.COMMAND_OUTCOME_INTERRUPTED;
  return { outcome, error: { code, message, retryable }, observation, commandLines: [] };
}

function outcomeOf(failure: ContainerFailure | undefined): CommandOutcome {
  if (failure?.code === "STALE_GENERATION") return CommandOutcome.COMMAND_OUTCOME_STALE_GENERATION;
  if (failure?.code === "CANCELLED") return CommandOutcome.COMMAND_OUTCOME_CANCELLED;
  return CommandOutcome.COMMAND_OUTCOME_FAILED;
}
