import { argumentVector, invocationDeadlineMs, readableCommandLine } from "../pct/command-line.ts";
import type { HostPaths } from "../pct/host-paths.ts";
import type { Operation, OperationEnd, OperationOutput, OperationRunner } from "../pct/operation-runner.ts";
import type { Invocation } from "../pct/pct-arguments.ts";
import { ContainerFailure } from "./container-failure.ts";
import type { ContainerProgress, ExecutionOptions } from "./containers.ts";

/** Looks belong to no container. */
const NO_VMID = 0;

/** How an invocation ended, with what it wrote. */
export interface InvocationEnd {
  readonly end: OperationEnd;
  readonly output: OperationOutput;
}

/** One execution of a command: its bounds, its programs and what it ran so far. */
export interface Execution {
  readonly commandId: string;
  /** Aborted when the command is cancelled or its time is over; the reason is the failure to report. */
  readonly signal: AbortSignal;
  /** The command lines that were run. */
  readonly commandLines: readonly string[];
  /** @throws ContainerFailure CANCELLED or DEADLINE_EXCEEDED */
  check(): void;
  report(progress: ContainerProgress): void;
  /**
   * Runs one program to its end. Its record stays until `forget`, as the proof of what was begun.
   * @throws ContainerFailure CANCELLED or DEADLINE_EXCEEDED after the program was asked to end
   */
  run(vmid: number, invocation: Invocation, onLine?: (line: string) => void): Promise<InvocationEnd>;
  /**
   * Runs one program that changes nothing and leaves no record. One that a former agent process left running
   * for this command is ended first.
   * @throws ContainerFailure CANCELLED or DEADLINE_EXCEEDED
   */
  look(invocation: Invocation): Promise<InvocationEnd>;
  /** Releases timers. */
  close(): void;
}

/** Begins an execution. */
export function beginExecution(paths: HostPaths, runner: OperationRunner, options: ExecutionOptions): Execution {
  const { commandId, signal: cancelled, deadlineMs } = options;
  const expired = new AbortController();
  const timer = setTimeout(() => expired.abort(), deadlineMs);
  const abort = new AbortController();
  const giveUp = (): void => abort.abort(cancelled.aborted ? cancelledFailure() : expiredFailure(deadlineMs));
  for (const source of [cancelled, expired.signal]) {
    if (source.aborted) giveUp();
    else source.addEventListener("abort", giveUp, { once: true });
  }
  const commandLines: string[] = [];
  let number = 0;
  const nextOperationId = (vmid: number): string => {
    const taken = new Set(runner.recorded(vmid).map(({ operationId }) => operationId));
    // Ids are unique on the host, and records are found by container.
    const prefix = vmid === NO_VMID ? `${commandId}-look` : commandId;
    do number += 1;
    while (taken.has(`${prefix}-${number}`));
    return `${prefix}-${number}`;
  };
  const start = async (vmid: number, invocation: Invocation): Promise<Operation> => {
    abort.signal.throwIfAborted();
    const argv = argumentVector(paths, invocation);
    commandLines.push(readableCommandLine(argv));
    return runner.start({ operationId: nextOperationId(vmid), commandId, vmid, argv });
  };
  const finish = async (
    operation: Operation,
    invocation: Invocation,
    onLine?: (line: string) => void,
  ): Promise<InvocationEnd> => {
    const limits = { signal: abort.signal, deadlineMs: invocationDeadlineMs(invocation) };
    const end = await operation.wait(onLine === undefined ? limits : { ...limits, onLine });
    return { end, output: await operation.output() };
  };
  return {
    commandId,
    signal: abort.signal,
    commandLines,
    check: () => abort.signal.throwIfAborted(),
    report: (progress) => options.onProgress?.(progress),
    run: async (vmid, invocation, onLine) => {
      const ended = await finish(await start(vmid, invocation), invocation, onLine);
      abort.signal.throwIfAborted();
      return ended;
    },
    look: async (invocation) => {
      await forgetFormerLooks(runner, commandId);
      const operation = await start(NO_VMID, invocation);
      const ended = await finish(operation, invocation);
      // What does not end keeps its record until it has.
      if (ended.end.kind !== "terminated" || ended.end.ended) operation.forget();
      abort.signal.throwIfAborted();
      return ended;
    },
    close: () => {
      clearTimeout(timer);
      cancelled.removeEventListener("abort", giveUp);
    },
  };
}

async function forgetFormerLooks(runner: OperationRunner, commandId: string): Promise<void> {
  for (const record of runner.recorded(NO_VMID)) {
    if (record.commandId !== commandId) continue;
    const operation = await runner.attach(record.operationId);
    if (operation !== undefined && (await operation.terminate())) operation.forget();
  }
}

function cancelledFailure(): ContainerFailure {
  return new ContainerFailure("CANCELLED", "the command was cancelled", { retryable: false });
}

function expiredFailure(deadlineMs: number): ContainerFailure {
  const message = `the command did not finish within ${deadlineMs} ms`;
  return new ContainerFailure("DEADLINE_EXCEEDED", message, { retryable: true });
}
