import { BackupObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { sql } from "../platform/sql.ts";
import { failureOf, sendWish, type Wish } from "../pods/command-steps.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import type { FinishedCommand, Step, StepContext, StepOutcome } from "../tasks/saga.ts";
import { lockBackup, type Backup } from "./backup.ts";
import { lockBackupsOf } from "./take-back-retention.ts";

/** Disks of hundreds of GB are read and packed. */
export const archiveTimeoutMs = 4 * 3_600_000;
/** A host makes one backup at a time: it may stand behind another one for as long as that takes. */
const deedTtlMs = archiveTimeoutMs;
/** With the backoff of tasks about ten minutes. */
const attemptsMax = 12;
/** A final backup stays for a month. */
const finalBackupDays = 30;

/** The backup that a task makes or uses; undefined: none. */
export function backupIdOf(task: { readonly input: Readonly<Record<string, unknown>> }): string | undefined {
  const { backupId } = task.input;
  return typeof backupId === "string" ? backupId : undefined;
}

/** A step's transaction with pod and backup locked. */
export interface BackupContext extends StepContext {
  readonly pod: Pod;
  readonly backup: Backup;
}

/** A step about the task's backup that asks the pod's host; done where the task has none. */
export function backupStep(options: {
  readonly name: string;
  readonly percent: number;
  readonly waitingFor: string;
  /** An outcome when nothing is to be asked. */
  readonly before?: (context: BackupContext) => Promise<StepOutcome | undefined>;
  readonly wish: (context: BackupContext) => Wish;
  readonly onSuccess: (context: BackupContext, command: FinishedCommand) => Promise<StepOutcome>;
  /** What a failure means; undefined: what it means everywhere. */
  readonly onFailure?: (context: BackupContext, command: FinishedCommand) => Promise<StepOutcome | undefined>;
  /** As of a step. */
  readonly watch?: NonNullable<Step["watch"]>;
}): Step {
  return {
    ...(options.watch === undefined ? {} : { watch: options.watch }),
    name: options.name,
    percent: options.percent,
    attemptsMax,
    async begin(context) {
      const here = await lockBoth(context);
      if (here === undefined) return { kind: "done", message: "No backup is wanted" };
      const settled = await options.before?.(here);
      if (settled !== undefined) return settled;
      const sent = await sendWish(here.tx, here.pod, here.task.id, options.wish(here));
      return { kind: "wait", ...sent, message: options.waitingFor };
    },
    async resume(context, command) {
      const here = await lockBoth(context);
      if (here === undefined) return { kind: "done", message: "No backup is wanted" };
      if (command.state === "succeeded") return await options.onSuccess(here, command);
      return (await options.onFailure?.(here, command)) ?? failureOf(command);
    },
  };
}

async function lockBoth(context: StepContext): Promise<BackupContext | undefined> {
  const id = backupIdOf(context.task);
  if (id === undefined) return undefined;
  const pod = await lockPodById(context.tx, context.task.podId);
  // In the order of whoever decides about all of them.
  await lockBackupsOf(context.tx, pod.id);
  return { ...context, pod, backup: await lockBackup(context.tx, pod, id) };
}

/** The host reads an archive to its end. */
export function lookWish(volumeId: string): Wish {
  return { op: { $case: "verifyBackup", value: { volumeId, atOnce: false } }, timeoutMs: archiveTimeoutMs };
}

/** The archive as the host saw it at the end of a command. */
export function archiveOf(command: Pick<FinishedCommand, "backup">): BackupObservation | undefined {
  return command.backup === null ? undefined : BackupObservation.fromJSON(command.backup);
}

/** One archive for each backup, however often it is asked for. */
export const makeArchiveStep = backupStep({
  name: "backup",
  percent: 5,
  waitingFor: "Making the archive",
  async before({ pod, backup }) {
    if (backup.state === "available" || backup.volumeId !== null)
      return { kind: "done", message: "The archive is made" };
    if (backup.state !== "running")
      return { kind: "fail", code: "BACKUP_OVER", message: `The backup is ${backup.state}` };
    if (pod.nodeId === backup.nodeId) return undefined;
    return await Promise.resolve({ kind: "fail", code: "POD_MOVED", message: "The pod is not where it was" });
  },
  wish: ({ backup }) => ({
    op: { $case: "backup", value: { backupId: backup.id, storage: backup.storage, mode: backup.mode } },
    timeoutMs: archiveTimeoutMs,
    ttlMs: deedTtlMs,
  }),
  async onSuccess({ tx, backup }, command) {
    const archive = archiveOf(command);
    if (archive === undefined || !archive.found || archive.volumeId === "")
      return { kind: "retry", code: "ARCHIVE_MISSING", message: "The host made no archive" };
    await tx.execute(sql`
      UPDATE cloud_pod_backups SET volume_id = ${archive.volumeId}, size_bytes = ${archive.sizeBytes} WHERE id = ${backup.id}`);
    return { kind: "done", message: "The archive is made" };
  },
  async onFailure({ tx, backup }, command) {
    if (command.errorCode !== "SNAPSHOT_UNSUPPORTED" || backup.mode !== "snapshot") return undefined;
    await tx.execute(sql`UPDATE cloud_pod_backups SET mode = 'suspend' WHERE id = ${backup.id}`);
    return { kind: "retry", code: "SNAPSHOT_UNSUPPORTED", message: "The pod's storage has no snapshots" };
  },
});

/** Only what was read to its end counts as a backup. */
export const verifyArchiveStep = backupStep({
  name: "verify",
  percent: 70,
  waitingFor: "Reading the archive",
  async before({ backup }) {
    return await Promise.resolve(
      backup.state === "available" ? { kind: "done", message: "The archive was read" } : undefined,
    );
  },
  wish: ({ backup }) => lookWish(backup.volumeId ?? ""),
  async onSuccess({ tx, backup, now }, command) {
    const archive = archiveOf(command);
    if (archive?.found !== true) return { kind: "fail", code: "ARCHIVE_MISSING", message: "The archive is gone again" };
    if (!archive.readable)
      return { kind: "fail", code: "ARCHIVE_UNREADABLE", message: "The archive cannot be read to its end" };
    const expiresAt = backup.kind === "final" ? new Date(now.getTime() + finalBackupDays * 86_400_000) : null;
    await tx.execute(sql`
      UPDATE cloud_pod_backups SET state = 'available', finished_at = ${now}, verified_at = ${now}, checked_at = ${now}, size_bytes = ${archive.sizeBytes},
        expires_at = coalesce(${expiresAt}, expires_at) WHERE id = ${backup.id} AND state = 'running'`);
    return { kind: "done", message: "The backup is there and can be read" };
  },
});
