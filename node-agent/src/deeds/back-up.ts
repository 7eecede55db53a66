import { basename } from "node:path";
import { messageOf } from "../agent-error.ts";
import type { BackupOrder, ContainerOutcome, DeedOptions } from "../containers/containers.ts";
import { ContainerFailure } from "../containers/container-failure.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import type { Execution, InvocationEnd } from "../containers/execution.ts";
import { requireQuorum } from "../containers/host-view.ts";
import { classifyPctError } from "../pct/classify-pct-error.ts";
import { halfMadeFiles, parseArchiveVolume, parseDumpLog } from "../pct/parse-archives.ts";
import type { DumpLog } from "../pct/parse-archives.ts";
import { vzdump } from "../pct/pct-arguments.ts";
import { findArchive, findBackup, observationOfArchive, removeFiles, writeNotes } from "./archives.ts";
import type { FoundArchive } from "./archives.ts";
import { carryOut, interrupted, patiently, requireFree } from "./deed.ts";
import type { DeedResult } from "./deed.ts";
import { settle } from "./settle.ts";

/** Locks that vzdump sets one after the other. */
const DUMP_LOCKS: ReadonlySet<string> = new Set(["backup", "snapshot", "snapshot-delete"]);

/**
 * Makes the archive of a backup. Its identity is in the archive's notes and in the words of the program's record,
 * so that it is found again whenever the agent or vzdump died; one that was begun and left no archive is answered
 * as interrupted instead of stopping the container a second time. @throws ContainerFailure
 */
export async function backUp(
  order: BackupOrder,
  options: DeedOptions,
  doors: ConvergeDoors,
): Promise<ContainerOutcome> {
  return carryOut(order.vmid, options, doors, async (execution) => {
    const invocation = vzdump(order);
    const former = await lastDump(order, doors);
    const made = await patiently(execution, doors, () => madeArchive(order, former, execution));
    if (former !== undefined) await clearUp(order, former, execution, doors);
    if (made !== undefined) return { backup: observationOfArchive(made) };
    if (former !== undefined) throw interrupted("a backup");
    return patiently(execution, doors, async () => {
      await requireQuorum(doors.view);
      try {
        const container = await requireFree(order, execution, doors);
        if (container.running && order.mode === "stop") await options.beforeStop();
        const report = (detail: string): void => execution.report({ step: "vzdump", percent: 0, detail });
        return await judge(order, await execution.run(order.vmid, invocation, report), execution);
      } finally {
        // Whatever became of it: a vzdump that was killed leaves half an archive, a lock and a stopped container.
        const log = await lastDump(order, doors);
        if (log !== undefined) await clearUp(order, log, execution, doors);
      }
    });
  });
}

/** An archive that is whole counts, whatever vzdump said afterwards. @throws ContainerFailure why there is none */
async function judge(order: BackupOrder, { end, output }: InvocationEnd, execution: Execution): Promise<DeedResult> {
  const log = parseDumpLog(output.stdout, order.vmid);
  const made = await madeArchive(order, log, execution);
  if (made !== undefined && made.sizeBytes > 0n) return { backup: observationOfArchive(made) };
  if (end.kind === "exited" && end.exitCode === 0) {
    const message = "vzdump said that it made an archive and there is none";
    throw new ContainerFailure("STEP_WITHOUT_EFFECT", message, { retryable: true });
  }
  if (end.kind !== "exited" || (log.failure === undefined && output.stderr.trim() === "")) {
    throw new ContainerFailure("INTERRUPTED", "vzdump was killed", { retryable: true });
  }
  // stderr says "job errors" and no more; the reason is in the log.
  const reason = classifyPctError(log.failure ?? output.stderr);
  const code = reason.code === "UNKNOWN_ERROR" ? "BACKUP_FAILED" : reason.code;
  throw new ContainerFailure(code, reason.message, { retryable: reason.retryable });
}

/** The log of the last vzdump of this backup whose record is still there; it has ended. */
async function lastDump(order: BackupOrder, { runner, paths }: ConvergeDoors): Promise<DumpLog | undefined> {
  const word = `--notes-template=${order.backupId}`;
  const record = runner
    .recorded(order.vmid)
    .findLast(({ argv }) => argv[0] === paths.vzdumpPath && argv.includes(word));
  const operation = record === undefined ? undefined : await runner.attach(record.operationId);
  return operation === undefined ? undefined : parseDumpLog((await operation.output()).stdout, order.vmid);
}

/** The whole archive of the backup, by its notes or by the log of the vzdump that made it. */
async function madeArchive(
  order: BackupOrder,
  log: DumpLog | undefined,
  execution: Execution,
): Promise<FoundArchive | undefined> {
  const { storage, vmid, backupId } = order;
  const noted = await findBackup(storage, vmid, backupId, execution);
  if (noted !== undefined || log?.archivePath === undefined) return noted;
  const name = parseArchiveVolume(`${storage}:backup/${basename(log.archivePath)}`);
  const found = name === undefined ? undefined : await findArchive(name, execution);
  if (found === undefined) return undefined;
  // vzdump gives an archive its name when it is whole and writes the notes right after.
  await writeNotes(found, backupId);
  return found;
}

/** Takes away what an ended vzdump may have left: half an archive, its lock, a container that it had stopped. */
async function clearUp(order: BackupOrder, log: DumpLog, execution: Execution, doors: ConvergeDoors): Promise<void> {
  try {
    if (log.archivePath !== undefined) await removeFiles(order.storage, halfMadeFiles(log.archivePath));
  } catch (error) {
    doors.log.error({ vmid: order.vmid, reason: messageOf(error) }, "half an archive could not be removed");
  }
  const shallRun = order.mode === "stop" && log.wasRunning;
  await settle(order, { locks: DUMP_LOCKS, shallRun }, execution, doors);
}
