import { Command, CommandOutcome, CommandResult } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { AgentError, messageOf } from "../agent-error.ts";
import type { Containers } from "../containers/containers.ts";
import { type Admission, admitCommand, isUuid } from "./admit-command.ts";
import { type CommandScheduleOptions, createCommandSchedule } from "./command-schedule.ts";
import { type ExecutionEnd, endOfFailure, endWithout } from "./execution-end.ts";
import { factsOf, isSupported } from "./operations.ts";

/** What the runner needs. */
export interface CommandRunnerOptions extends CommandScheduleOptions {
  /** Names of the operations that this host carries out. */
  readonly capabilities: readonly string[];
}

/** Takes commands on, carries each out once, and remembers how it ended. */
export interface CommandRunner {
  /** One delivery of a command. Resolves when it is journalled or answered, not when it is done. */
  receive(command: Command): Promise<void>;
  /**
   * Begins to carry out, first what an earlier process left unfinished. Called once it is certain
   * that this host may act; until then commands are only journalled.
   */
  open(): void;
  /** Answers unfinished commands of pods that `isOwned` denies instead of running them. */
  abandon(isOwned: (podId: string, generation: bigint) => boolean): void;
  /** Ids of commands that are journalled and not finished. */
  unfinishedIds(): string[];
  /** Starts nothing more. Programs that run are left alone; the next process finds them. */
  close(): void;
}

/** Beyond this many waiting commands a host is told to be busy; a control plane sends far fewer. */
const maxWaitingCommands = 500;

/** Makes a runner over a journal. */
export function createCommandRunner(options: CommandRunnerOptions): CommandRunner {
  const { clock, journal, queue, nowMs, send, log } = options;
  const schedule = createCommandSchedule(options);
  let state: "waiting" | "open" | "closed" = "waiting";

  const acceptedNow = () => ({ bootId: clock.bootId, monotonicMs: clock.monotonicMs() });
  const accept = (command: Command, { op, fence }: Extract<Admission, { decision: "accept" }>): void => {
    const { commandId, podId, vmid } = command;
    const operation = factsOf(op).name;
    journal.accept({ ...journalRow(command), operation, acceptedAtMs: nowMs(), acceptedIn: acceptedNow() }, fence);
    journal.raiseFleetEpoch(command.fleetEpoch);
    send({ $case: "accepted", value: { commandId } });
    log.info({ commandId, podId, vmid, operation }, "command accepted");
    if (state === "open") schedule.add(commandId, op, vmid);
  };
  const refuse = (command: Command, end: ExecutionEnd, record: boolean): void => {
    const now = nowMs();
    if (!record) return send({ $case: "result", value: schedule.resultOf(command, end, now) });
    const operation = isSupported(command.op) ? factsOf(command.op).name : "unknown";
    journal.accept({ ...journalRow(command), operation, acceptedAtMs: now, acceptedIn: acceptedNow() }, undefined);
    schedule.finish(command, end, now);
  };
  const act = (command: Command, admission: Admission): void => {
    switch (admission.decision) {
      case "repeat":
        return send({ $case: "result", value: CommandResult.decode(admission.result) });
      case "known":
        return send({ $case: "accepted", value: { commandId: command.commandId } });
      case "refuse": {
        const { outcome, code, message, record } = admission;
        return refuse(command, endWithout(outcome, code, message), record);
      }
      case "accept":
        return queue.size() < maxWaitingCommands ? accept(command, admission) : refuse(command, busy(), false);
    }
  };
  return {
    async receive(command) {
      if (state === "closed") return;
      if (!isUuid(command.commandId)) return log.error("a command without a proper id cannot be answered");
      const markerGeneration = await readMarker(command, options.containers);
      const admission = admitCommand(command, {
        recorded: journal.find(command.commandId),
        fence: journal.findFence(command.podId),
        markerGeneration,
        fleetEpoch: journal.fleetEpoch(),
        capabilities: options.capabilities,
      });
      try {
        act(command, admission);
      } catch (error) {
        // A full disk must not end the session: whoever frees it may need this host's answers.
        log.error({ commandId: command.commandId, reason: messageOf(error) }, "the journal could not be written");
        const failure = new AgentError("JOURNAL_UNWRITABLE", messageOf(error), { retryable: true });
        refuse(command, endOfFailure(failure), false);
      }
    },
    open() {
      if (state !== "waiting") return;
      state = "open";
      for (const row of journal.unfinished()) {
        const { op } = Command.decode(row.envelope);
        if (isSupported(op)) schedule.add(row.commandId, op, row.vmid);
      }
    },
    abandon(isOwned) {
      for (const row of journal.unfinished()) {
        const command = Command.decode(row.envelope);
        if (row.podId === "" || isOwned(row.podId, command.generation)) continue;
        const message = "The host restarted and the pod is no longer placed on it in this generation.";
        const outcome = CommandOutcome.COMMAND_OUTCOME_STALE_GENERATION;
        schedule.finish(command, endWithout(outcome, "STALE_GENERATION", message), row.acceptedAtMs);
      }
    },
    unfinishedIds: () => journal.unfinished().map(({ commandId }) => commandId),
    close() {
      state = "closed";
      schedule.close();
    },
  };
}

function journalRow(command: Command) {
  const { commandId, podId, vmid } = command;
  return { commandId, podId, vmid, envelope: Command.encode(command).finish() };
}

/**
 * Generation in the marker of the pod's own container. Undefined when there is none or when the host
 * cannot be read: then the journal alone decides, and the execution looks again before it acts.
 */
async function readMarker(command: Command, containers: Containers): Promise<bigint | undefined> {
  if (!isSupported(command.op) || factsOf(command.op).kind === "control" || command.vmid === 0) return undefined;
  try {
    const seen = await containers.observe(command.vmid);
    return seen?.podId === command.podId ? seen.generation : undefined;
  } catch {
    return undefined;
  }
}

function busy(): ExecutionEnd {
  return endOfFailure(new AgentError("NODE_BUSY", "Too many commands wait on this host.", { retryable: true }));
}
