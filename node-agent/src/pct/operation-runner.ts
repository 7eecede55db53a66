import { open, readFile } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import {
  operationFiles,
  readOperationRecord,
  readOperationRecords,
  removeOperationFiles,
  writeOperationRecord,
} from "./operation-record.ts";
import type { OperationFiles, OperationRecord } from "./operation-record.ts";
import { findProgram, hasSystemd, startDetached, startUnit, unitMainPid } from "./operation-start.ts";
import type { ProgramEnd } from "./operation-start.ts";
import { processStart } from "./process-start.ts";

/** How an operation ended, as far as this process can know. */
export type OperationEnd =
  | ProgramEnd
  /** It ended while nobody watched: only its output and the host tell how. */
  | { readonly kind: "unobserved" }
  /** It was asked to end because of the signal or the deadline; `ended` says whether it has. */
  | {
      readonly kind: "terminated";
      readonly reason: "cancelled" | "deadline";
      readonly ended: boolean;
    };

/** What an operation has written, the last 16 KiB of each. */
export interface OperationOutput {
  readonly stdout: string;
  readonly stderr: string;
}

export interface OperationWait {
  readonly signal: AbortSignal;
  readonly deadlineMs: number;
  /** Called with new whole lines of stdout, each cut at 500 characters. */
  readonly onLine?: (line: string) => void;
}

/** A program of Proxmox that runs or ran on its own. */
export interface Operation {
  readonly record: OperationRecord;
  /** Whether it runs now. */
  isAlive(): Promise<boolean>;
  /** Waits for the end; asks the program to end when cancelled or late. */
  wait(options: OperationWait): Promise<OperationEnd>;
  /** Sends SIGTERM once and waits up to `patienceMs`; never kills. True when it has ended. */
  terminate(patienceMs?: number): Promise<boolean>;
  output(): Promise<OperationOutput>;
  /** Removes the record and the output of an ended operation. */
  forget(): void;
}

export interface OperationRequest {
  readonly operationId: string;
  readonly commandId: string;
  readonly vmid: number;
  readonly argv: readonly string[];
}

/** Starts programs that outlive the agent and finds them again. */
export interface OperationRunner {
  start(request: OperationRequest): Promise<Operation>;
  /** An operation of this or a former agent process; undefined when it was never started. */
  attach(operationId: string): Promise<Operation | undefined>;
  /** Records of a container's operations that were not forgotten, oldest first. */
  recorded(vmid: number): OperationRecord[];
  /** Removes the records and output of a container's ended operations. */
  forgetEnded(vmid: number): Promise<void>;
}

/** How much of the end of each output is kept. */
export const OUTPUT_LIMIT_BYTES = 16_384;
const LINE_LIMIT = 500;
const POLL_MS = 100;

/**
 * A `pct` that gets SIGTERM hands it to its worker, which rolls back what it did; killing either
 * leaves locks, mounts and volumes behind. So there is one signal and much patience.
 */
const TERMINATION_PATIENCE_MS = 30_000;

/** A runner that keeps records and output in `directory`. */
export function createOperationRunner(directory: string): OperationRunner {
  const systemd = hasSystemd();
  const attach = async (operationId: string): Promise<Operation | undefined> => {
    const record = readOperationRecord(directory, operationId);
    return record === undefined ? undefined : openOperation(directory, await withProcess(record), undefined);
  };
  return {
    start: async ({ operationId, commandId, vmid, argv }) => {
      const unit = systemd ? { unit: `cloudpods-op-${operationId}` } : {};
      const intended: OperationRecord = {
        operationId,
        commandId,
        vmid,
        argv,
        bootId: await bootId(),
        ...unit,
      };
      if (readOperationRecord(directory, operationId) !== undefined) {
        throw new Error(`the operation ${operationId} was started before`);
      }
      writeOperationRecord(directory, intended);
      const files = operationFiles(directory, operationId);
      const { pid, end } = await (intended.unit === undefined
        ? startDetached(intended, files)
        : startUnit(intended, files, intended.unit));
      const start = await processStart("/proc", pid);
      // A program that has already ended has no start; 0 matches no process.
      const record = { ...intended, process: { pid, start: String(start ?? 0n) } };
      writeOperationRecord(directory, record);
      return openOperation(directory, record, end);
    },
    attach,
    recorded: (vmid) => readOperationRecords(directory, vmid),
    forgetEnded: async (vmid) => {
      for (const { operationId } of readOperationRecords(directory, vmid)) {
        const operation = await attach(operationId);
        if (operation !== undefined && !(await operation.isAlive())) operation.forget();
      }
    },
  };
}

/** Completes a record whose agent died between the start and the note of the pid. */
async function withProcess(record: OperationRecord): Promise<OperationRecord> {
  if (record.process !== undefined || record.bootId !== (await bootId())) return record;
  const pid = record.unit === undefined ? undefined : await unitMainPid(record.unit);
  const start = pid === undefined ? undefined : await processStart("/proc", pid);
  const found = pid === undefined || start === undefined ? await findProgram(record.operationId) : { pid, start };
  if (found === undefined) return record;
  return { ...record, process: { pid: found.pid, start: String(found.start) } };
}

function openOperation(directory: string, record: OperationRecord, end: Promise<ProgramEnd> | undefined): Operation {
  const files = operationFiles(directory, record.operationId);
  const isAlive = async (): Promise<boolean> => {
    if (record.process === undefined || record.bootId !== (await bootId())) return false;
    const start = await processStart("/proc", record.process.pid);
    return start !== undefined && String(start) === record.process.start;
  };
  const terminate = async (patienceMs = TERMINATION_PATIENCE_MS): Promise<boolean> => {
    if (!(await isAlive()) || record.process === undefined) return true;
    try {
      process.kill(record.process.pid, "SIGTERM");
    } catch {
      // It ended between the look and the signal.
      return true;
    }
    const until = performance.now() + patienceMs;
    while (await isAlive()) {
      if (performance.now() >= until) return false;
      await pause(POLL_MS);
    }
    return true;
  };
  const wait = async ({ signal, deadlineMs, onLine }: OperationWait): Promise<OperationEnd> => {
    const until = performance.now() + deadlineMs;
    const follower = onLine === undefined ? undefined : followLines(files, onLine);
    for (;;) {
      const ended = await settledWithin(end, POLL_MS);
      await follower?.();
      if (ended !== undefined) return ended;
      if (end === undefined && !(await isAlive())) return { kind: "unobserved" };
      const reason = signal.aborted ? "cancelled" : performance.now() >= until ? "deadline" : undefined;
      if (reason !== undefined) return { kind: "terminated", reason, ended: await terminate() };
    }
  };
  const output = async (): Promise<OperationOutput> => ({
    stdout: await readTail(files.stdout),
    stderr: await readTail(files.stderr),
  });
  return {
    record,
    isAlive,
    wait,
    terminate,
    output,
    forget: () => removeOperationFiles(directory, record.operationId),
  };
}

async function settledWithin<T>(promise: Promise<T> | undefined, ms: number): Promise<T | undefined> {
  if (promise === undefined) return pause(ms, undefined);
  const timer = new AbortController();
  const result = await Promise.race([promise, pause(ms, undefined, { signal: timer.signal }).catch(() => undefined)]);
  timer.abort();
  return result;
}

/** A function that reports the lines of stdout that came since its last call. */
function followLines(files: OperationFiles, onLine: (line: string) => void): () => Promise<void> {
  let offset = 0;
  let rest = "";
  return async () => {
    const chunk = await readChunk(files.stdout, offset);
    offset += chunk.length;
    const lines = `${rest}${chunk.toString("utf8")}`.split(/[\n\r]/u);
    rest = (lines.pop() ?? "").slice(0, LINE_LIMIT);
    for (const line of lines) if (line.trim() !== "") onLine(line.slice(0, LINE_LIMIT));
  };
}

async function readTail(path: string): Promise<string> {
  const size = await sizeOf(path);
  const chunk = await readChunk(path, Math.max(0, size - OUTPUT_LIMIT_BYTES));
  return chunk.toString("utf8");
}

/** Up to 16 KiB of a file from an offset; empty when there is no such file. */
async function readChunk(path: string, offset: number): Promise<Buffer> {
  const file = await open(path, "r").catch(() => undefined);
  if (file === undefined) return Buffer.alloc(0);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(OUTPUT_LIMIT_BYTES), 0, OUTPUT_LIMIT_BYTES, offset);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function sizeOf(path: string): Promise<number> {
  const file = await open(path, "r").catch(() => undefined);
  if (file === undefined) return 0;
  try {
    return (await file.stat()).size;
  } finally {
    await file.close();
  }
}

async function bootId(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
}
