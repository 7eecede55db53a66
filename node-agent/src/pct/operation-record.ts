import { mkdirSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../agent-error.ts";
import { writeDurableFile } from "../durable-file.ts";

/**
 * What is known of one program that was started, written before it starts so that an agent that
 * dies at any moment finds it again.
 */
export interface OperationRecord {
  /** Unique on the host: the command and a number. */
  readonly operationId: string;
  /** Command (UUID) that the program works for. */
  readonly commandId: string;
  /** Container that it changes; 0 for none. */
  readonly vmid: number;
  readonly argv: readonly string[];
  /** Pids are only meaningful within one boot. */
  readonly bootId: string;
  /** Transient systemd unit; absent where there is no systemd. */
  readonly unit?: string;
  /** Absent from before the start until the pid is known. */
  readonly process?: {
    readonly pid: number;
    /** Start in clock ticks since boot, decimal. */
    readonly start: string;
  };
}

/** Where an operation's record and output lie. */
export interface OperationFiles {
  readonly record: string;
  readonly stdout: string;
  readonly stderr: string;
}

const OPERATION_ID = /^[0-9a-zA-Z][0-9a-zA-Z-]{0,79}$/u;

/** The files of an operation. @throws Error when the id could leave the directory */
export function operationFiles(directory: string, operationId: string): OperationFiles {
  if (!OPERATION_ID.test(operationId)) throw new Error(`not an operation id: ${JSON.stringify(operationId)}`);
  const base = join(directory, operationId);
  return { record: `${base}.json`, stdout: `${base}.stdout`, stderr: `${base}.stderr` };
}

/** Writes or replaces a record; it survives a power cut when this returns. */
export function writeOperationRecord(directory: string, record: OperationRecord): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const { record: path } = operationFiles(directory, record.operationId);
  writeDurableFile(path, `${JSON.stringify(record)}\n`, 0o600);
}

/** One record; undefined when there is none or it is not one of ours. */
export function readOperationRecord(directory: string, operationId: string): OperationRecord | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(operationFiles(directory, operationId).record, "utf8"));
    return isRecord(value) ? value : undefined;
  } catch (error) {
    if (codeOf(error) === "ENOENT" || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** All records of a container, oldest first. */
export function readOperationRecords(directory: string, vmid: number): OperationRecord[] {
  const ids = namesIn(directory).flatMap((name) => /^(.+)\.json$/u.exec(name)?.[1] ?? []);
  return ids
    .flatMap((id) => readOperationRecord(directory, id) ?? [])
    .filter((record) => record.vmid === vmid)
    .toSorted((a, b) => a.operationId.localeCompare(b.operationId, "en", { numeric: true }));
}

/** Removes an operation's files. */
export function removeOperationFiles(directory: string, operationId: string): void {
  const { record, stdout, stderr } = operationFiles(directory, operationId);
  // The record goes last: what it names can be found until it is gone.
  for (const path of [stdout, stderr, record]) rmSync(path, { force: true });
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

function isRecord(value: unknown): value is OperationRecord {
  if (typeof value !== "object" || value === null) return false;
  const { operationId, commandId, vmid, argv, bootId } = value as Partial<OperationRecord>;
  return (
    typeof operationId === "string" &&
    typeof commandId === "string" &&
    typeof vmid === "number" &&
    typeof bootId === "string" &&
    Array.isArray(argv)
  );
}
