import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { shallRun } from "../moves/reserve-move.ts";
import { sql } from "../platform/sql.ts";
import { differences } from "../pods/container-spec.ts";
import { observationOf, sendWish } from "../pods/command-steps.ts";
import { lockPodById } from "../pods/pod.ts";
import { startStep, stopStep } from "../pods/power-steps.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { Saga, Step, StepContext } from "../tasks/saga.ts";
import { archiveOf, archiveTimeoutMs, backupStep } from "./archive-steps.ts";
import { restoreWish } from "./restore-wish.ts";

/** A large archive is read twice. */
export const restoreDeadlineMs = 8 * 3_600_000;
/** The host reads the archive to its end before it is told to give anything up for it. */
export const checkArchiveStep: Step = backupStep({
  name: "check",
  percent: 0,
  waitingFor: "Reading the backup",
  async before({ backup }) {
    if (backup.state === "available") return await Promise.resolve(undefined);
    return { kind: "fail", code: "BACKUP_NOT_AVAILABLE", message: `The backup is ${backup.state}` };
  },
  wish: ({ backup }) => ({
    op: { $case: "verifyBackup", value: { volumeId: backup.volumeId ?? "", atOnce: false } },
    timeoutMs: archiveTimeoutMs,
  }),
  async onSuccess(_, command) {
    const archive = archiveOf(command);
    if (archive?.found !== true)
      return await Promise.resolve({
        kind: "fail",
        code: "ARCHIVE_MISSING",
        message: "The backup is not there any more",
      });
    if (!archive.readable)
      return { kind: "fail", code: "ARCHIVE_UNREADABLE", message: "The backup cannot be read to its end" };
    return { kind: "done", message: "The backup is there and can be read" };
  },
});

const stopFirst = stopStep(30);

/** A container that the host has lost does not run either. */
const stopUnlessLostStep: Step = {
  ...stopFirst,
  async resume(context, command) {
    if (command.errorCode === "CONTAINER_MISSING") return { kind: "done", message: "The host has lost the container" };
    return (await stopFirst.resume?.(context, command)) ?? { kind: "done", message: "Not needed" };
  },
};

/** The pod's own container and no other is replaced: the host compares the mark of the one that is there. */
const restoreStep: Step = backupStep({
  name: "restore",
  percent: 40,
  waitingFor: "Restoring the container",
  wish: ({ pod, backup }) => restoreWish(pod, backup.volumeId ?? ""),
  async onSuccess({ pod }, command) {
    const seen = observationOf(command);
    const wrong = seen === undefined ? ["nothing that it reports"] : differences(pod, seen);
    if (archiveOf(command)?.restored !== true) wrong.push("no disk from the archive");
    if (wrong.length > 0)
      return await Promise.resolve({
        kind: "retry",
        code: "CONFIGURATION_DIFFERS",
        message: `The host made ${wrong.join(", ")}`,
      });
    return { kind: "done", message: "The container is restored" };
  },
});

const runAgain = startStep(85);

/** As is wanted now: a pod that shall be stopped stays so. */
const startAgainStep: Step = {
  ...runAgain,
  async begin(context) {
    const pod = await lockPodById(context.tx, context.task.podId);
    if (!(await shallRun(context.tx, pod))) return { kind: "done", message: "The container stays stopped" };
    return await runAgain.begin(context);
  },
};

/** What is there runs again, if it shall and can: the former container, or what became of it. */
const undoStep: Step = {
  name: "undo-stop",
  percent: 40,
  attemptsMax: 12,
  async begin({ tx, task }) {
    const pod = await lockPodById(tx, task.podId);
    if (!(await shallRun(tx, pod))) return { kind: "done", message: "The pod shall not run" };
    const power = { power: Power.POWER_RUNNING, shutdownTimeoutSeconds: 0 };
    const sent = await sendWish(tx, pod, task.id, { op: { $case: "ensurePower", value: power }, timeoutMs: 300_000 });
    return { kind: "wait", ...sent, message: "Starting the container as it is" };
  },
  async resume({ task }, command) {
    if (command.state === "succeeded") return await Promise.resolve({ kind: "done", message: "The container runs" });
    const message = command.errorMessage ?? `The host answered ${command.state}`;
    if (command.retryable === true && task.attempts < 11)
      return { kind: "retry", code: command.errorCode ?? "START_FAILED", message };
    return { kind: "done", message: `The container does not run: ${message}` };
  },
};

/** A pod becomes again what it was at one of its backups, where it is. */
export const restorePod: Saga = {
  type: "restore",
  deadlineMs: restoreDeadlineMs,
  steps: [checkArchiveStep, stopUnlessLostStep, restoreStep, startAgainStep],
  undo: [undoStep],
  async finish({ tx, task }: StepContext, end) {
    const isDone = end === "succeeded";
    await tx.execute(sql`
      UPDATE cloud_pods SET last_error_code = ${isDone ? null : task.errorCode}, last_error_message = ${isDone ? null : task.errorMessage},
        version = version + 1, updated_at = now() WHERE id = ${task.podId}`);
    await recordAudit(tx, {
      actor: systemActor("backups"),
      requestId: task.requestId ?? undefined,
      tenantId: task.tenantId,
      action: isDone ? "pod.restored" : "pod.restore-failed",
      targetType: "pod",
      targetId: task.podId,
      detail: { ...task.input, error: task.errorCode },
    });
  },
};
