import { basename } from "node:path";
import { messageOf } from "../agent-error.ts";
import type { BackupOrder, ContainerOutcome, ContainerProgress, DeedOptions } from "../containers/containers.ts";
import { ContainerFailure, asFailure } from "../containers/container-failure.ts";
import type { ConvergeDoors } from "../containers/doors.ts";
import { beginExecution } from "../containers/execution.ts";
import type { Execution, InvocationEnd } from "../containers/execution.ts";
import { requireQuorum } from "../containers/host-view.ts";
import { extraVolumes, snapshotsOf } from "../containers/observed-container.ts";
import type { ObservedContainer } from "../containers/observed-container.ts";
import { step } from "../containers/plan-step.ts";
import { classifyPctError } from "../pct/classify-pct-error.ts";
import { halfMadeFiles, parseArchiveVolume, parseDumpLog } from "../pct/parse-archives.ts";
import type { DumpLog } from "../pct/parse-archives.ts";
import { pctShutdown, pvesmFree, vzdump } from "../pct/pct-arguments.ts";
import type { Invocation } from "../pct/pct-arguments.ts";
import { readLiveTasks } from "../pct/read-tasks.ts";
import { tellingGrowth } from "./archive-growth.ts";
import { findArchive, findBackup, observationOfArchive, removeFiles, writeNotes } from "./archives.ts";
import type { FoundArchive } from "./archives.ts";
import { carryOut, interrupted, patiently, placeAgain, requireFree, takeStep } from "./deed.ts";
import type { DeedResult } from "./deed.ts";
import { settle } from "./settle.ts";

/** Locks that vzdump sets one after the other. */
const DUMP_LOCKS: ReadonlySet<string> = new Set(["backup", "snapshot", "snapshot-delete"]);

/** No mode of vzdump, which always starts again what it has stopped: the container is stopped before and stays so. */
const SHUT_DOWN = "shut-down";
const SHUTDOWN_SECONDS = 60;
/** How long it may take to look whether an archive was made all the same. */
const LOOK_MS = 60_000;

/** Whether a container is stopped after its backup. */
export function leavesStopped({ mode }: Pick<BackupOrder, "mode">): boolean {
  return mode === SHUT_DOWN;
}

/**
 * An archive holds the root disk as it is, and no other volume. What is stopped for its archive is destroyed after it, with
 * unused volumes and snapshots too; else only what the guest sees matters. @throws ContainerFailure MORE_THAN_A_POD
 */
export function refusePartial(order: Pick<BackupOrder, "vmid" | "mode">, observed: ObservedContainer): void {
  if (observed.where !== "here") return;
  const { config } = observed;
  const parts = leavesStopped(order)
    ? [...extraVolumes(config), ...snapshotsOf(config)]
    : extraVolumes(config).filter((key) => key.startsWith("mp"));
  if (parts.length === 0) return;
  const message = `container ${order.vmid} has ${parts.join(", ")}, which an archive of a pod would not hold`;
  throw new ContainerFailure("MORE_THAN_A_POD", message, { retryable: false });
}

/** The programs of a backup of a container that runs or not. */
export function backupInvocations(order: BackupOrder, running: boolean): Invocation[] {
  return [...(running && leavesStopped(order) ? [shutdown(order)] : []), dumpInvocation(order)];
}

function shutdown({ vmid }: BackupOrder): Invocation {
  return pctShutdown(vmid, SHUTDOWN_SECONDS);
}

function dumpInvocation(order: BackupOrder): Invocation {
  return vzdump({ ...order, mode: leavesStopped(order) ? "stop" : order.mode });
}

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
    const invocation = dumpInvocation(order);
    const former = await lastDump(order, doors);
    const made = await patiently(execution, doors, () => madeArchive(order, former, execution));
    if (former !== undefined) await clearUp(order, former, execution, doors);
    if (leavesStopped(order)) refusePartial(order, await doors.view.observe(order.vmid));
    if (made !== undefined && !(await isOutdated(order, doors))) return { backup: observationOfArchive(made) };
    if (made !== undefined) await execution.look(pvesmFree(made.name.volumeId));
    if (former !== undefined) throw interrupted("a backup");
    return await dump(order, invocation, execution, options, doors);
  });
}

/** Whether the guest has gone on since its archive was made, as after a boot of the host, although it should not. */
async function isOutdated(order: BackupOrder, { view }: ConvergeDoors): Promise<boolean> {
  if (!leavesStopped(order)) return false;
  const observed = await view.observe(order.vmid);
  return observed.where === "here" && observed.running;
}

async function dump(
  order: BackupOrder,
  invocation: Invocation,
  execution: Execution,
  options: DeedOptions,
  doors: ConvergeDoors,
): Promise<DeedResult> {
  let stoppedAtMs = 0n;
  let hasStopped = false;
  try {
    return await patiently(execution, doors, async () => {
      await requireQuorum(doors.view);
      try {
        const here = await requireFree(order, execution, doors);
        refusePartial(order, here);
        const { running } = here;
        if (running && leavesStopped(order)) {
          await requireNoOtherDump(doors);
          // From here on it is no longer only waiting.
          execution.report({ step: "shutdown", percent: 0, detail: "" });
          await options.beforeStop();
          stoppedAtMs = BigInt(Math.round(doors.nowMs()));
          await shutDown(order, execution, doors);
          hasStopped = true;
        } else if (running && order.mode === "stop") await options.beforeStop();
        const report = (progress: ContainerProgress): void => execution.report(progress);
        const ended = await tellingGrowth(order, report, (tell) => execution.run(order.vmid, invocation, tell));
        const made = await judge(order, ended, execution);
        return { backup: observationOfArchive(made, { stoppedAtMs }) };
      } finally {
        // Whatever became of it: a vzdump that was killed leaves half an archive, a lock and a stopped container.
        const log = await lastDump(order, doors);
        if (log !== undefined) await clearUp(order, log, execution, doors);
      }
    });
  } catch (error) {
    if (stoppedAtMs > 0n) await runAgain(order, execution, doors);
    if (!hasStopped) throw error;
    const { code, message, retryable } = asFailure(error);
    const move = await placeAgain(order.vmid, doors, () => Math.round(doors.nowMs()) - Number(stoppedAtMs));
    throw new ContainerFailure(code, message, { retryable, ...(move === undefined ? {} : { move }) });
  }
}

/** vzdump would wait for another one of the host while the container is stopped: better that runs on. */
async function requireNoOtherDump({ paths }: ConvergeDoors): Promise<void> {
  const tasks = await readLiveTasks(paths);
  if (!tasks.some(({ type }) => type === "vzdump")) return;
  throw new ContainerFailure("LOCKED", "another backup of this host is under way", { retryable: true });
}

async function shutDown(order: BackupOrder, execution: Execution, doors: ConvergeDoors): Promise<void> {
  const { vmid } = order;
  await takeStep(step("shutdown", shutdown(order)), vmid, execution, doors);
  const observed = await doors.view.observe(vmid);
  if (observed.where !== "here" || !observed.running) return;
  throw new ContainerFailure("STEP_WITHOUT_EFFECT", `container ${vmid} still runs`, { retryable: true });
}

/**
 * Without an archive the container shall not stand still until somebody tries again. Where there is one after all, or
 * that cannot be seen, it stays stopped: what it would write now would be missing there.
 */
async function runAgain(order: BackupOrder, { commandId }: Execution, doors: ConvergeDoors): Promise<void> {
  const bounds = { commandId, signal: new AbortController().signal, deadlineMs: LOOK_MS };
  const execution = beginExecution(doors.paths, doors.runner, bounds);
  try {
    const made = await madeArchive(order, await lastDump(order, doors), execution);
    if (made === undefined) await settle(order, { locks: DUMP_LOCKS, shallRun: true }, execution, doors);
  } catch (error) {
    doors.log.error({ vmid: order.vmid, reason: messageOf(error) }, "the container stays stopped after a backup");
  } finally {
    execution.close();
  }
}

/** An archive that is whole counts, whatever vzdump said afterwards. @throws ContainerFailure why there is none */
async function judge(order: BackupOrder, { end, output }: InvocationEnd, execution: Execution): Promise<FoundArchive> {
  const log = parseDumpLog(output.stdout, order.vmid);
  const made = await madeArchive(order, log, execution);
  if (made !== undefined && made.sizeBytes > 0n) return made;
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
