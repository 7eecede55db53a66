import { Command, CommandOutcome } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { DisciplinedClock } from "../clock/disciplined-clock.ts";
import type { ContainerProgress, ConvergeOptions } from "../containers/containers.ts";
import type { Journal, JournalledCommand } from "../journal/journal.ts";
import { isStillWanted } from "./admit-command.ts";
import { type ExecutionDoors, executeCommand } from "./execute-command.ts";
import { type ExecutionEnd, endOfFailure, endWithout } from "./execution-end.ts";
import { type SupportedOperation, factsOf, isSupported } from "./operations.ts";

/** What carrying out a journalled command needs. */
export interface RunDoors extends ExecutionDoors {
  readonly journal: Journal;
  /** Disciplined time, ms since 1970 UTC. */
  readonly nowMs: () => number;
  /** Tells how long a command has waited. */
  readonly clock: Pick<DisciplinedClock, "bootId" | "monotonicMs">;
  readonly onProgress: (progress: ContainerProgress) => void;
}

/** A command that ended and how; the caller records it. */
export interface EndedCommand {
  readonly command: Command;
  readonly end: ExecutionEnd;
  readonly startedAtMs: number;
}

/**
 * Carries out a command of the journal when its turn has come: for the first time, or again after the
 * process that ran it died. Undefined when it was finished meanwhile. Rejects only if the journal fails.
 */
export async function runJournalled(
  commandId: string,
  signal: AbortSignal,
  doors: RunDoors,
): Promise<EndedCommand | undefined> {
  const { journal, nowMs } = doors;
  const row = journal.find(commandId);
  if (row === undefined || row.state === "finished") return undefined;
  const command = Command.decode(row.envelope);
  const startedAtMs = row.startedAtMs ?? nowMs();
  const end = (value: ExecutionEnd): EndedCommand => ({ command, end: value, startedAtMs });
  if (!isSupported(command.op)) {
    const { COMMAND_OUTCOME_UNSUPPORTED } = CommandOutcome;
    return end(endWithout(COMMAND_OUTCOME_UNSUPPORTED, "UNSUPPORTED", "Unknown to this version of the agent."));
  }
  const { op } = command;
  const notStarted = reasonNotToStart(row, command, op, signal, doors);
  if (notStarted !== undefined) return end(notStarted);
  journal.start(commandId, startedAtMs);
  try {
    const options = boundsOf(command, op, signal, doors);
    const recovered = row.state === "running" ? await recover(command, op, options, doors) : undefined;
    const fence = journal.findFence(command.podId);
    const value = recovered ?? (await executeCommand(command, op, fence, options, doors));
    const isComplete = op.$case === "ensureContainer" || op.$case === "ensureAbsent" || op.$case === "restore";
    if (recovered === undefined && isComplete) journal.forgetVmidAbsent(command.podId);
    return end(value);
  } catch (error) {
    const isResumed = row.state === "running" && factsOf(op).isResumable === true;
    return end(isResumed ? endOfResumed(error) : endOfFailure(error));
  }
}

/** Why a command whose turn has come is answered instead. One that ran before must be looked after first. */
function reasonNotToStart(
  row: JournalledCommand,
  command: Command,
  op: SupportedOperation,
  signal: AbortSignal,
  { clock, journal }: RunDoors,
): ExecutionEnd | undefined {
  if (row.state === "running") return undefined;
  if (signal.aborted) return cancelledBefore();
  const { kind } = factsOf(op);
  if (kind === "deed" && command.ttlMs > 0n) {
    const { bootId, monotonicMs } = row.acceptedIn;
    const ageMs = bootId === clock.bootId ? Math.floor(clock.monotonicMs() - monotonicMs) : undefined;
    // A host that was booted meanwhile cannot tell for how long it was off.
    if (ageMs === undefined || BigInt(ageMs) > command.ttlMs) {
      const waited = ageMs === undefined ? "since before the host was booted" : `${ageMs} ms`;
      const message = `It waited ${waited}; its time to live was ${command.ttlMs} ms.`;
      return endWithout(CommandOutcome.COMMAND_OUTCOME_EXPIRED, "EXPIRED", message);
    }
  }
  return kind === "wish" && !isStillWanted(command, journal.findFence(command.podId)) ? superseded() : undefined;
}

/**
 * Waits for what a former process left running. Undefined when the command shall go on: a wish is
 * simply wished again. A deed must not happen twice, and that its program left no trace does not
 * prove that it did not happen: the trace goes just before the result is recorded.
 */
async function recover(
  command: Command,
  op: SupportedOperation,
  options: ConvergeOptions,
  { containers, journal }: RunDoors,
): Promise<ExecutionEnd | undefined> {
  const { kind } = factsOf(op);
  if (kind === "look" || kind === "control") return undefined;
  if (factsOf(op).isResumable === true) return undefined;
  const { observation } = await containers.recover(command.vmid, options);
  if (kind === "wish") {
    return isStillWanted(command, journal.findFence(command.podId)) ? undefined : { ...superseded(), observation };
  }
  const message = "The agent was restarted in the middle; the observation says what it found.";
  return endWithout(CommandOutcome.COMMAND_OUTCOME_INTERRUPTED, "INTERRUPTED", message, observation);
}

function boundsOf(
  command: Command,
  op: SupportedOperation,
  signal: AbortSignal,
  { journal, onProgress }: RunDoors,
): ConvergeOptions {
  const { commandId, podId, vmid, timeoutMs } = command;
  return {
    commandId,
    signal,
    deadlineMs: timeoutMs > 0n ? Number(timeoutMs) : factsOf(op).defaultTimeoutMs,
    onProgress,
    absentBefore: journal.wasVmidAbsent(podId, vmid),
    recordAbsent: () => journal.recordVmidAbsent(commandId),
  };
}

/** A deed that a former process began, and whose effect is not there, was interrupted; it did not fail. */
function endOfResumed(error: unknown): ExecutionEnd {
  const end = endOfFailure(error);
  if (end.error?.code !== "INTERRUPTED") return end;
  return { ...end, outcome: CommandOutcome.COMMAND_OUTCOME_INTERRUPTED };
}

/** The end of a command that was cancelled before its turn came. */
export function cancelledBefore(): ExecutionEnd {
  return endWithout(CommandOutcome.COMMAND_OUTCOME_CANCELLED, "CANCELLED", "Cancelled before it began.");
}

function superseded(): ExecutionEnd {
  const message = "A newer wish was accepted before this one's turn came.";
  return endWithout(CommandOutcome.COMMAND_OUTCOME_SUPERSEDED, "SUPERSEDED", message);
}
