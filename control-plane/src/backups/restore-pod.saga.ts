import { DomainError } from "@cloudpods/shared/errors";
import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { shallRun } from "../moves/reserve-move.ts";
import { sql } from "../platform/sql.ts";
import { differences } from "../pods/container-spec.ts";
import { observationOf, sendWish } from "../pods/command-steps.ts";
import { lockPodById } from "../pods/pod.ts";
import { shutdownTimeoutSeconds, startStep, stopStep } from "../pods/power-steps.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { allowMoreTime, explainFailure } from "../tasks/change-task.ts";
import { notNeeded, type Saga, type Step, type StepContext, type StepOutcome } from "../tasks/saga.ts";
import { archiveOf, archiveTimeoutMs, backupStep, lookWish } from "./archive-steps.ts";
import { requireUsable } from "./backup.ts";
import { isOtherSilent, judgeLook } from "./judge-look.ts";
import { requireRoomBeside } from "./require-restorable.ts";
import { beforeRestoreWish, restoreWish } from "./restore-wish.ts";

/** A large archive is read twice. */
export const restoreDeadlineMs = 8 * 3_600_000;
/** So that a restore that took all its time may be told of, and started. */
const startAllowanceMs = 1_800_000;
/** The host reads the archive to its end before it is told to give anything up for it. */
export const checkArchiveStep: Step = backupStep({
  name: "check",
  percent: 0,
  waitingFor: "Reading the backup",
  // Since it was asked for, the backup may have been found damaged or told to go.
  before: async ({ backup }) => await refusalOf(() => requireUsable(backup)),
  wish: ({ backup }) => lookWish(backup.volumeId ?? ""),
  async watch({ tx, task }, command) {
    const { nodeId } = await lockPodById(tx, task.podId);
    if (!(await isOtherSilent(tx, command, nodeId))) return undefined;
    const message = "The pod's host does not see the backup, and the host that was asked besides does not answer";
    return { kind: "fail", code: "ARCHIVE_NOT_SEEN", message };
  },
  async onSuccess(context, command) {
    const { pod, backup } = context;
    if (backup.volumeId === null) throw new Error(`backup ${backup.id} has no archive`);
    const usable = { ...backup, volumeId: backup.volumeId };
    const verdict = await judgeLook(context, pod, { backup: usable, userNodeId: pod.nodeId ?? "" }, command);
    if (verdict.kind === "good") return { kind: "done", message: "The backup is there and can be read" };
    if (verdict.kind === "wait" || verdict.kind === "retry") return verdict;
    const fail = (code: string, message: string) => ({ kind: "fail", code, message }) as const;
    if (verdict.kind === "unseen")
      return fail("ARCHIVE_NOT_SEEN", "Another host sees the backup, but not the pod's own: its storage is not there");
    if (verdict.isThere) return fail("ARCHIVE_UNREADABLE", "The backup cannot be read to its end");
    return fail("ARCHIVE_MISSING", "The backup is not there any more");
  },
});

/** What is refused now is not tried again: it would be refused again. */
async function refusalOf(requirement: () => Promise<void> | void): Promise<StepOutcome | undefined> {
  try {
    await requirement();
    return undefined;
  } catch (error) {
    if (error instanceof DomainError) return { kind: "fail", code: error.code, message: error.message };
    throw error;
  }
}

/** Our books are as old as the last inventory: the host itself says what stands against it, before anything is stopped for it. */
const lookStep: Step = backupStep({
  name: "look",
  percent: 28,
  waitingFor: "Asking the host whether it can replace the container",
  wish: ({ pod, backup }) => beforeRestoreWish(pod, backup.volumeId ?? ""),
  onSuccess: async () => await Promise.resolve({ kind: "done", message: "The host can replace the container" }),
  // Agents of the former release look no further at one that runs.
  onFailure: async (_, { errorCode }) => await Promise.resolve(errorCode === "STILL_RUNNING" ? notNeeded : undefined),
});

const stopFirst = stopStep(30);

/** A container that the host has lost does not run either. Nothing is stopped for want of room. */
const stopUnlessLostStep: Step = {
  ...stopFirst,
  async begin(context) {
    const pod = await lockPodById(context.tx, context.task.podId);
    return (await refusalOf(() => requireRoomBeside(context.tx, pod))) ?? (await stopFirst.begin(context));
  },
  async resume(context, command) {
    if (command.errorCode === "CONTAINER_MISSING") return { kind: "done", message: "The host has lost the container" };
    return (await stopFirst.resume?.(context, command)) ?? notNeeded;
  },
};

/**
 * The pod's own container and no other is replaced: the host compares the mark of the one that is there. Proxmox removes
 * it before it unpacks the archive, so from here on nobody ends the task (`cancelTask`), nor does the clock before the host's own.
 */
const restoreStep: Step = backupStep({
  name: "restore",
  percent: 40,
  waitingFor: "Restoring the container",
  async before({ tx, task }) {
    await allowMoreTime(tx, task, 2 * archiveTimeoutMs + startAllowanceMs);
    return undefined;
  },
  wish: ({ pod, backup }) => restoreWish(pod, backup.volumeId ?? ""),
  async onSuccess({ tx, pod }, command) {
    const seen = observationOf(command);
    const wrong = seen === undefined ? ["nothing that it reports"] : differences(pod, seen);
    if (archiveOf(command)?.restored !== true) wrong.push("no disk from the archive");
    if (wrong.length > 0)
      return { kind: "retry", code: "CONFIGURATION_DIFFERS", message: `The host made ${wrong.join(", ")}` };
    await tx.execute(sql`UPDATE cloud_pods SET observed_power = 'stopped', observed_at = now() WHERE id = ${pod.id}`);
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

/** What is there is as it is wanted: the former container, or what became of it. It may be gone with the failure. */
const undoStep: Step = {
  name: "undo-stop",
  percent: 40,
  attemptsMax: 12,
  async begin({ tx, task }) {
    const pod = await lockPodById(tx, task.podId);
    const power = (await shallRun(tx, pod)) ? Power.POWER_RUNNING : Power.POWER_STOPPED;
    const value = { power, shutdownTimeoutSeconds };
    const sent = await sendWish(tx, pod, task.id, { op: { $case: "ensurePower", value }, timeoutMs: 300_000 });
    return { kind: "wait", ...sent, message: "Looking what is left of the container" };
  },
  async resume({ tx, task }, command) {
    if (command.state === "succeeded")
      return await Promise.resolve({ kind: "done", message: "The container is there, as it is wanted" });
    if (command.errorCode === "CONTAINER_MISSING") {
      await tx.execute(sql`
        UPDATE cloud_pods SET container_missing_since = coalesce(container_missing_since, now()), observed_power = 'unknown', observed_at = now()
        WHERE id = ${task.podId}`);
      return { kind: "done", message: isGone };
    }
    const message = command.errorMessage ?? `The host answered ${command.state}`;
    if (command.retryable === true && task.attempts < 11)
      return { kind: "retry", code: command.errorCode ?? "START_FAILED", message };
    return { kind: "done", message: `The container is not as it is wanted: ${message}` };
  },
};

/** Told to the owner: nothing but a restore brings such a pod back. */
const isGone = "The container is gone: restore this backup again, or an older one";

/** A pod becomes again what it was at one of its backups, where it is. */
export const restorePod: Saga = {
  type: "restore",
  deadlineMs: restoreDeadlineMs,
  steps: [checkArchiveStep, lookStep, stopUnlessLostStep, restoreStep, startAgainStep],
  undo: [undoStep],
  async finish({ tx, task }: StepContext, end) {
    const isDone = end === "succeeded";
    const { containerMissingSince } = await lockPodById(tx, task.podId);
    const isLost = !isDone && containerMissingSince !== null;
    const message = isLost ? `${task.errorMessage ?? "It failed"}. ${isGone}.` : task.errorMessage;
    if (isLost) await explainFailure(tx, task, message ?? "");
    await tx.execute(sql`
      UPDATE cloud_pods SET last_error_code = ${isDone ? null : task.errorCode}, last_error_message = ${isDone ? null : message},
        container_missing_since = ${isDone ? null : containerMissingSince}, version = version + 1, updated_at = now() WHERE id = ${task.podId}`);
    await recordAudit(tx, {
      actor: systemActor("backups"),
      requestId: task.requestId ?? undefined,
      tenantId: task.tenantId,
      action: isDone ? "pod.restored" : "pod.restore-failed",
      targetType: "pod",
      targetId: task.podId,
      detail: { ...task.input, error: task.errorCode, ...(isLost ? { containerGone: true } : {}) },
    });
  },
};
