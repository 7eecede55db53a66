import { backUpSoonIfBehind } from "../backups/backups-behind.ts";
import { createTask } from "../tasks/create-task.ts";
import { lockPodById } from "../pods/pod.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { Saga, StepContext } from "../tasks/saga.ts";
import {
  backupStep,
  checkStep,
  confirmStep,
  copyTimeoutMs,
  freeIdStep,
  restoreStep,
  startStep,
  stopStep,
  verifyStep,
} from "./forward-steps.ts";
import { lookStep } from "./look-step.ts";
import { endMove, lockMove } from "./move.ts";
import { moveIdOf } from "./move-steps.ts";
import { auditOf, switchPlace } from "./switch-place.ts";
import { transferStep } from "./transfer-step.ts";
import { firstSteps } from "./untouched-move.ts";
import {
  forgetStep,
  releaseStep,
  removeStep,
  restoredSwitchStep,
  runningSwitchStep,
  takeOverSwitchStep,
} from "./switch-steps.ts";
import {
  undoArchiveStep,
  undoFreeStep,
  undoReserveStep,
  undoStartFirstStep,
  undoStartLastStep,
  undoTargetStep,
} from "./undo-steps.ts";

/** A disk of hundreds of GB is written, read and written again, and each of these may take its hours. */
export const moveDeadlineMs = 3 * copyTimeoutMs;

/**
 * A pod moves to the place that was claimed for it. One list of steps for all ways of moving, each step knowing which it
 * is for: so a migration that Proxmox refuses goes on by archive without a second task, and what is undone is read
 * from what was written down and not from where the task stood.
 */
export const movePod: Saga = {
  type: "migrate",
  deadlineMs: moveDeadlineMs,
  operatorsMayCancelAt: firstSteps,
  steps: [
    checkStep,
    transferStep,
    backupStep,
    stopStep,
    verifyStep,
    freeIdStep,
    lookStep,
    takeOverSwitchStep,
    restoreStep,
    confirmStep,
    restoredSwitchStep,
    startStep,
    runningSwitchStep,
    removeStep,
    forgetStep,
    releaseStep,
  ],
  undo: [undoStartFirstStep, undoTargetStep, undoFreeStep, undoStartLastStep, undoArchiveStep, undoReserveStep],
  async finish(context, end) {
    const { tx, task } = context;
    const move = await lockMove(tx, moveIdOf(task));
    if (end === "succeeded") {
      await backUpSoonIfBehind(tx, move.podId);
      return await endMove(tx, move.id, "moved");
    }
    const error = { code: task.errorCode, message: task.errorMessage };
    if (move.switchedAt === null && move.foundOnTarget) return await finishOnTarget(context, move.id, error);
    await endMove(tx, move.id, move.switchedAt === null ? "undone" : "moved", error);
    await recordAudit(tx, {
      actor: systemActor("moves"),
      requestId: task.requestId ?? undefined,
      tenantId: move.tenantId,
      action: "pod.move-failed",
      targetType: "pod",
      targetId: move.podId,
      detail: { ...auditOf(move), code: error.code, podIsOn: move.switchedAt === null ? move.fromNode : move.toNode },
    });
  },
};

/** Proxmox moved the container and failed afterwards: there is no way back, so the rest is done there. Once. */
async function finishOnTarget(
  { tx, task, now }: StepContext,
  moveId: string,
  error: { code: string | null; message: string | null },
): Promise<void> {
  const move = await lockMove(tx, moveId);
  if (task.input["again"] === true) {
    await switchPlace(tx, await lockPodById(tx, move.podId), move, now, task.requestId);
    return await endMove(tx, move.id, "moved", error);
  }
  const next = await createTask(tx, {
    tenantId: move.tenantId,
    podId: move.podId,
    type: "migrate",
    step: confirmStep.name,
    percent: confirmStep.percent,
    input: { moveId, again: true },
    deadlineMs: moveDeadlineMs,
    requestedBy: task.requestedBy,
    requestId: task.requestId ?? "",
    message: `Proxmox had moved the container to ${move.toNode} already; the rest is done there`,
  });
  await tx.execute(sql`UPDATE cloud_pod_moves SET task_id = ${next.id} WHERE id = ${moveId}`);
}
