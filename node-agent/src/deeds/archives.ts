import { readFile, rm, stat, writeFile } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { BackupObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { codeOf } from "../agent-error.ts";
import { ContainerFailure } from "../containers/container-failure.ts";
import type { Execution, InvocationEnd } from "../containers/execution.ts";
import { classifyPctError } from "../pct/classify-pct-error.ts";
import { parseArchiveVolume, parseBackupList } from "../pct/parse-archives.ts";
import type { ArchiveName } from "../pct/parse-archives.ts";
import { pvesmListBackups, pvesmPath } from "../pct/pct-arguments.ts";
import type { Invocation } from "../pct/pct-arguments.ts";
import { type PoolCall, poolGuard, storageGroup } from "../pool-guard.ts";

/** An archive that is there. */
export interface FoundArchive {
  readonly name: ArchiveName;
  readonly path: string;
  readonly sizeBytes: bigint;
}

/** How long a storage may take to answer a question about one file. */
const FILE_DEADLINE_MS = 10_000;
/** A backup's identity is shorter. */
const NOTES_LIMIT = 200;

/** @throws ContainerFailure NOT_AN_ARCHIVE unless the volume is a backup of that container */
export function requireArchiveOf(vmid: number, volumeId: string): ArchiveName {
  const name = requireArchive(volumeId);
  if (name.vmid === vmid) return name;
  const message = `${volumeId} is a backup of container ${name.vmid}, not of ${vmid}`;
  throw new ContainerFailure("NOT_AN_ARCHIVE", message, { retryable: false });
}

/** @throws ContainerFailure NOT_AN_ARCHIVE unless the volume is a backup of a container */
export function requireArchive(volumeId: string): ArchiveName {
  const name = parseArchiveVolume(volumeId);
  if (name !== undefined) return name;
  const shown = JSON.stringify(volumeId.slice(0, 200));
  throw new ContainerFailure("NOT_AN_ARCHIVE", `${shown} is not a backup of a container`, { retryable: false });
}

/**
 * Looks for an archive; undefined when it is not there.
 * @throws ContainerFailure when its storage does not answer: an absent mount shows no files either
 */
export async function findArchive(name: ArchiveName, execution: Execution): Promise<FoundArchive | undefined> {
  // Only this asks the storage whether it is there; `path` does not.
  await listBackups(name.storage, name.vmid, execution);
  return statArchive(name, await pathOf(name, execution));
}

/** The archive whose notes name the backup; undefined when there is none. @throws ContainerFailure */
export async function findBackup(
  storage: string,
  vmid: number,
  backupId: string,
  execution: Execution,
): Promise<FoundArchive | undefined> {
  const names = await listBackups(storage, vmid, execution);
  const [newest] = names.toReversed();
  if (newest === undefined) return undefined;
  const directory = dirname(await pathOf(newest, execution));
  for (const name of names.toReversed()) {
    const path = join(directory, fileOf(name));
    const notes = await onStorage<string>(storage, notesOf(path), (done) => readFile(notesOf(path), "utf8", done));
    if (notes?.slice(0, NOTES_LIMIT).trim() === backupId) return statArchive(name, path);
  }
  return undefined;
}

/** Writes the identity of a backup beside an archive whose vzdump died before it could. */
export async function writeNotes({ name, path }: FoundArchive, backupId: string): Promise<void> {
  const file = notesOf(path);
  await onStorage<void>(name.storage, file, (done) => writeFile(file, backupId, (error) => done(error)));
}

/** Removes files that a killed vzdump left. */
export async function removeFiles(storage: string, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    await onStorage<void>(storage, path, (done) => rm(path, { recursive: true, force: true }, (error) => done(error)));
  }
}

/** The wire form of an archive. */
export function observationOfArchive(
  { name, sizeBytes }: FoundArchive,
  change: Partial<BackupObservation> = {},
): BackupObservation {
  const { volumeId, createdAtMs } = name;
  return {
    volumeId,
    sizeBytes,
    createdAtMs: BigInt(createdAtMs),
    found: true,
    readable: false,
    restored: false,
    stoppedAtMs: 0n,
    ...change,
  };
}

/** The wire form of an archive that is not there. */
export function observationOfAbsence(volumeId: string): BackupObservation {
  const isNot = { found: false, readable: false, restored: false };
  return { volumeId, sizeBytes: 0n, createdAtMs: 0n, ...isNot, stoppedAtMs: 0n };
}

async function listBackups(storage: string, vmid: number, execution: Execution): Promise<ArchiveName[]> {
  const output = await answerOf(pvesmListBackups(storage, vmid), storage, execution);
  return parseBackupList(output).flatMap((volumeId) => parseArchiveVolume(volumeId) ?? []);
}

/** Where an archive lies, whether or not it is there. @throws ContainerFailure */
export async function pathOf(name: ArchiveName, execution: Execution): Promise<string> {
  const path = (await answerOf(pvesmPath(name.volumeId), name.storage, execution)).trim();
  if (path.startsWith("/") && basename(path) === fileOf(name)) return path;
  // A backup server keeps no files that this host could read.
  const message = `storage ${name.storage} does not keep its backups in files`;
  throw new ContainerFailure("BACKUP_FORMAT_UNSUPPORTED", message, { retryable: false });
}

async function answerOf(invocation: Invocation, storage: string, execution: Execution): Promise<string> {
  const ended = await execution.look(invocation);
  if (ended.end.kind === "exited" && ended.end.exitCode === 0) return ended.output.stdout;
  throw storageFailure(ended, storage);
}

function storageFailure({ end, output }: InvocationEnd, storage: string): ContainerFailure {
  const { code, message, retryable } = classifyPctError(output.stderr, output.stdout);
  if (end.kind === "exited" && code !== "UNKNOWN_ERROR") return new ContainerFailure(code, message, { retryable });
  const reason = output.stderr.trim() === "" ? `storage ${storage} does not answer` : message;
  return new ContainerFailure("STORAGE_UNAVAILABLE", reason, { retryable: true });
}

async function statArchive(name: ArchiveName, path: string): Promise<FoundArchive | undefined> {
  const found = await onStorage<{ size: bigint }>(name.storage, path, (done) => stat(path, { bigint: true }, done));
  return found === undefined ? undefined : { name, path, sizeBytes: found.size };
}

/** Asks a storage about a file; undefined when there is none. @throws ContainerFailure STORAGE_UNAVAILABLE */
export async function onStorage<T>(storage: string, path: string, call: PoolCall<T>): Promise<T | undefined> {
  const asked = await poolGuard.ask(storageGroup(storage), path, FILE_DEADLINE_MS, call);
  if (asked.kind === "answered") return asked.value;
  if (asked.kind === "failed" && codeOf(asked.error) === "ENOENT") return undefined;
  const reason = asked.kind === "failed" ? asked.error.message : "it does not answer";
  throw new ContainerFailure("STORAGE_UNAVAILABLE", `storage ${storage}: ${reason}`, { retryable: true });
}

function fileOf({ volumeId, storage }: ArchiveName): string {
  return volumeId.slice(`${storage}:backup/`.length);
}

function notesOf(path: string): string {
  return `${path}.notes`;
}
