import {
  Command,
  CommandOutcome,
  CommandResult,
  type ConnectRequest,
} from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Logger } from "pino";
import { AgentError, messageOf } from "../agent-error.ts";
import type { Containers } from "../containers/containers.ts";
import type { Journal } from "../journal/journal.ts";
import { type Admission, admitCommand } from "./admit-command.ts";
import { type CommandQueue, createCommandQueue } from "./command-queue.ts";
import { type ExecutionEnd, endWithout } from "./execution-end.ts";
import { type SupportedOperation, factsOf, isSupported } from "./operations.ts";
import { type RunDoors, runJournalled } from "./run-journalled.ts";

/** A message for the control plane. */
export type AgentMessage = NonNullable<ConnectRequest["message"]>;

/** What the runner needs. */
export interface CommandRunnerOptions extends Omit<RunDoors, "cancel" | "onProgress"> {
  readonly containers: Containers;
  readonly journal: Journal;
  /** Work on containers goes through here, one at a time for each. */
  readonly queue: CommandQueue;
  /** Sends when there is a session. The link repeats results; the rest may be lost. */
  readonly send: (message: AgentMessage) => void;
  readonly log: Logger;
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
/** Looks change nothing and may wait long for an address, so they do not stand in the queue. */
const lookBounds = { maxParallel: 64, maxWaiting: 1_000 };
const progressIntervalMs = 1_000;

/** Makes a runner over a journal. */
export function createCommandRunner(options: CommandRunnerOptions): CommandRunner {
  const { journal, queue, nowMs, send, log } = options;
  const looks = createCommandQueue(lookBounds);
  const active = new Map<string, { readonly abort: AbortController; readonly ended: Promise<void> }>();
  let state: "waiting" | "open" | "closed" = "waiting";

  const answer = (command: Command, end: ExecutionEnd, startedAtMs: number): CommandResult => {
    const { commandId, generation, podId, vmid } = command;
    const result: CommandResult = {
      commandId,
      generation,
      startedAtMs: BigInt(startedAtMs),
      finishedAtMs: BigInt(nowMs()),
      ...end,
    };
    const error = end.error === undefined ? {} : { code: end.error.code, reason: end.error.message };
    log.info({ commandId, podId, vmid, outcome: end.outcome, ...error }, "command answered");
    return result;
  };
  const finish = (command: Command, end: ExecutionEnd, startedAtMs: number): void => {
    const result = answer(command, end, startedAtMs);
    journal.finish(command.commandId, CommandResult.encode(result).finish(), nowMs());
    send({ $case: "result", value: result });
  };
  const cancel = async (commandId: string, signal: AbortSignal): Promise<void> => {
    const entry = active.get(commandId);
    if (entry !== undefined) {
      entry.abort.abort();
      return unlessAborted(entry.ended, signal);
    }
    if (journal.find(commandId)?.state !== "finished") {
      throw new AgentError("UNKNOWN_COMMAND", "This host has no such command.");
    }
  };
  const schedule = (commandId: string, op: SupportedOperation, vmid: number): void => {
    const abort = new AbortController();
    const done = Promise.withResolvers<void>();
    const { kind } = factsOf(op);
    const work = async (): Promise<void> => {
      try {
        const onProgress = progressSender(commandId, send);
        const doors = { ...options, cancel, onProgress };
        const ended = await runJournalled(commandId, abort.signal, doors);
        if (ended !== undefined) finish(ended.command, ended.end, ended.startedAtMs);
      } catch (error) {
        // Only the journal can fail here: the command stays unfinished and the next start resumes it.
        log.error({ commandId, error: messageOf(error) }, "the end of a command could not be recorded");
      } finally {
        active.delete(commandId);
        done.resolve();
      }
    };
    active.set(commandId, { abort, ended: done.promise });
    if (kind === "control") return void work();
    if ((kind === "look" ? looks : queue).offer(vmid, work)) return;
    active.delete(commandId);
    log.error({ commandId }, "the queue is full; the command stays in the journal until the next start");
  };
  const accept = (command: Command, admission: Extract<Admission, { decision: "accept" }>): void => {
    const { commandId, podId, vmid } = command;
    const envelope = Command.encode(command).finish();
    const operation = factsOf(admission.op).name;
    journal.accept({ commandId, operation, podId, vmid, envelope, acceptedAtMs: nowMs() }, admission.fence);
    journal.raiseFleetEpoch(command.fleetEpoch);
    send({ $case: "accepted", value: { commandId } });
    log.info({ commandId, podId, vmid, operation }, "command accepted");
    if (state === "open") schedule(commandId, admission.op, vmid);
  };
  const refuse = (command: Command, end: ExecutionEnd, record: boolean): void => {
    const now = nowMs();
    if (!record) return send({ $case: "result", value: answer(command, end, now) });
    const { commandId, podId, vmid } = command;
    const operation = isSupported(command.op) ? factsOf(command.op).name : "";
    const envelope = Command.encode(command).finish();
    journal.accept({ commandId, operation, podId, vmid, envelope, acceptedAtMs: now }, undefined);
    finish(command, end, now);
  };

  return {
    async receive(command) {
      if (state === "closed") return;
      const markerGeneration = await readMarker(command, options.containers);
      const admission = admitCommand(command, {
        recorded: journal.find(command.commandId),
        fence: journal.findFence(command.podId),
        markerGeneration,
        fleetEpoch: journal.fleetEpoch(),
      });
      switch (admission.decision) {
        case "repeat":
          return send({ $case: "result", value: CommandResult.decode(admission.result) });
        case "known":
          return send({ $case: "accepted", value: { commandId: command.commandId } });
        case "refuse":
          return refuse(command, endWithout(admission.outcome, admission.code, admission.message), admission.record);
        case "accept":
          if (queue.size() < maxWaitingCommands) return accept(command, admission);
          return refuse(command, busy(), false);
      }
    },
    open() {
      if (state !== "waiting") return;
      state = "open";
      for (const row of journal.unfinished()) {
        const { op } = Command.decode(row.envelope);
        if (isSupported(op)) schedule(row.commandId, op, row.vmid);
      }
    },
    abandon(isOwned) {
      for (const row of journal.unfinished()) {
        const command = Command.decode(row.envelope);
        if (row.podId === "" || isOwned(row.podId, command.generation)) continue;
        const message = "The host restarted and the pod is no longer placed on it in this generation.";
        const stale = CommandOutcome.COMMAND_OUTCOME_STALE_GENERATION;
        finish(command, endWithout(stale, "STALE_GENERATION", message), row.acceptedAtMs);
      }
    },
    unfinishedIds: () => journal.unfinished().map(({ commandId }) => commandId),
    close() {
      state = "closed";
      queue.close();
      looks.close();
    },
  };
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
  return {
    outcome: CommandOutcome.COMMAND_OUTCOME_FAILED,
    error: { code: "NODE_BUSY", message: "Too many commands wait on this host.", retryable: true },
    observation: undefined,
    commandLines: [],
  };
}

/** Passes progress on, at most once a second unless the step changes. */
function progressSender(commandId: string, send: (message: AgentMessage) => void): RunDoors["onProgress"] {
  let lastStep = "";
  let lastSentMs = Number.NEGATIVE_INFINITY;
  return (progress) => {
    const now = performance.now();
    if (progress.step === lastStep && now - lastSentMs < progressIntervalMs) return;
    lastStep = progress.step;
    lastSentMs = now;
    send({ $case: "progress", value: { commandId, ...progress } });
  };
}

async function unlessAborted(ended: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void =>
    aborted.reject(new AgentError("DEADLINE_EXCEEDED", "The command did not end in time.", { retryable: true }));
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([ended, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
