import { setTimeout as sleep } from "node:timers/promises";
import { Command, CommandResult, type ConnectRequest } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Logger } from "pino";
import { AgentError, messageOf } from "../agent-error.ts";
import { fullJitterMs } from "../backoff.ts";
import type { Journal } from "../journal/journal.ts";
import { type CommandQueue, createCommandQueue } from "./command-queue.ts";
import type { ExecutionEnd } from "./execution-end.ts";
import { type SupportedOperation, factsOf } from "./operations.ts";
import { type EndedCommand, type RunDoors, cancelledBefore, runJournalled } from "./run-journalled.ts";

/** A message for the control plane. */
export type AgentMessage = NonNullable<ConnectRequest["message"]>;

/** What the schedule needs. */
export interface CommandScheduleOptions extends Omit<RunDoors, "cancel" | "onProgress"> {
  readonly journal: Journal;
  /** Work on containers goes through here, one at a time for each. */
  readonly queue: CommandQueue;
  /** Sends when there is a session. The link repeats results; the rest may be lost. */
  readonly send: (message: AgentMessage) => void;
  readonly log: Logger;
}

/** Gives each journalled command its turn and records its end. */
export interface CommandSchedule {
  add(commandId: string, op: SupportedOperation, vmid: number): void;
  /** Makes the result of a command, for an end that was decided at `startedAtMs` or later. */
  resultOf(command: Command, end: ExecutionEnd, startedAtMs: number): CommandResult;
  /** Records how a command ended and tells the control plane. */
  finish(command: Command, end: ExecutionEnd, startedAtMs: number): void;
  close(): void;
}

/** Looks change nothing and may wait long for an address, so they do not stand in the queue. */
const lookBounds = { maxParallel: 64, maxWaiting: 1_000 };
/** Proxmox makes one backup of a host at a time. The container's own turn keeps it apart from wishes. */
const slowBounds = { maxParallel: 1, maxWaiting: 1_000 };
const progressIntervalMs = 1_000;
const maxJournalFailures = 120;
const journalBackoff = { baseMs: 500, capMs: 30_000 };

/** Makes an empty schedule. */
export function createCommandSchedule(options: CommandScheduleOptions): CommandSchedule {
  const { journal, queue, nowMs, send, log } = options;
  const looks = createCommandQueue(lookBounds);
  const slow = createCommandQueue(slowBounds);
  const active = new Map<string, { readonly abort: AbortController; readonly ended: Promise<void> }>();

  const resultOf: CommandSchedule["resultOf"] = (command, end, startedAtMs) => {
    const { commandId, generation, podId, vmid } = command;
    const error = end.error === undefined ? {} : { code: end.error.code, reason: end.error.message };
    log.info({ commandId, podId, vmid, outcome: end.outcome, ...error }, "command answered");
    const times = { startedAtMs: BigInt(startedAtMs), finishedAtMs: BigInt(nowMs()) };
    return { commandId, generation, ...times, backup: undefined, move: undefined, ...end };
  };
  const finish: CommandSchedule["finish"] = (command, end, startedAtMs) => {
    const result = resultOf(command, end, startedAtMs);
    journal.finish(command.commandId, CommandResult.encode(result).finish(), nowMs());
    send({ $case: "result", value: result });
  };
  const cancel = async (commandId: string, signal: AbortSignal): Promise<void> => {
    const entry = active.get(commandId);
    entry?.abort.abort();
    const row = journal.find(commandId);
    // Its turn may come in hours: it is over now, and will be found so then.
    if (row?.state === "accepted") return finish(Command.decode(row.envelope), cancelledBefore(), nowMs());
    if (entry !== undefined) return unlessAborted(entry.ended, signal);
    if (row?.state === "finished") return;
    throw new AgentError("UNKNOWN_COMMAND", "This host has no such command.");
  };
  return {
    add(commandId, op, vmid) {
      const abort = new AbortController();
      const over = Promise.withResolvers<void>();
      const doors = { ...options, cancel, onProgress: progressSender(commandId, send) };
      let ended: EndedCommand | undefined;
      const runAndRecord = async (): Promise<void> => {
        ended ??= await runJournalled(commandId, abort.signal, doors);
        if (ended !== undefined) finish(ended.command, ended.end, ended.startedAtMs);
      };
      const work = async (): Promise<void> => {
        await whileJournalFails(runAndRecord, commandId, log);
        active.delete(commandId);
        over.resolve();
      };
      active.set(commandId, { abort, ended: over.promise });
      const { kind, isSlow } = factsOf(op);
      if (kind === "control") return void work();
      const line = kind === "look" ? looks : isSlow === true ? slow : queue;
      if (line.offer(vmid, work)) return;
      active.delete(commandId);
      log.error({ commandId }, "the queue is full; the command stays in the journal until the next start");
    },
    resultOf,
    finish,
    close() {
      queue.close();
      looks.close();
      slow.close();
    },
  };
}

/**
 * Repeats work that only the journal can make fail, as on a full disk, for about half an hour. After
 * that the command stays unfinished and the next start of the agent resumes it.
 */
async function whileJournalFails(work: () => Promise<void>, commandId: string, log: Logger): Promise<void> {
  for (let failures = 0; failures < maxJournalFailures; failures += 1) {
    try {
      return await work();
    } catch (error) {
      log.error({ commandId, reason: messageOf(error) }, "the journal could not be written");
      await sleep(fullJitterMs(failures, Math.random(), journalBackoff), undefined, { ref: false });
    }
  }
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
  const late = Promise.withResolvers<never>();
  const message = "The command did not end in time.";
  const onAbort = (): void => late.reject(new AgentError("DEADLINE_EXCEEDED", message, { retryable: true }));
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([ended, late.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
