import { makeArchiveStep, verifyArchiveStep } from "../backups/archive-steps.ts";
import { failBackup } from "../backups/back-up-pod.saga.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { Saga, Step } from "../tasks/saga.ts";
import { changePodStatus } from "./change-status.ts";
import { lockPodById, type Pod } from "./pod.ts";
import { beginRemoval, leaveBehind, vacate } from "./release-pod.ts";
import { removeContainerStep } from "./remove-container-step.ts";

/** The host may be away for a day; the customer's bill ended with the request. */
export const destroyDeadlineMs = 86_400_000;

const releaseStep: Step = {
  name: "release",
  percent: 90,
  attemptsMax: 10,
  async begin({ tx, task, now }) {
    const pod = await lockPodById(tx, task.podId);
    await ((await isKnownGone(tx, pod)) ? vacate(tx, pod, now) : leaveBehind(tx, pod, now));
    await changePodStatus(tx, pod, "gone");
    await tx.execute(sql`UPDATE cloud_pods SET deleted_at = ${now} WHERE id = ${pod.id}`);
    await tx.execute(
      sql`UPDATE subscriptions SET state = 'CANCELLED', ended_at = ${now} WHERE id = ${pod.subscriptionId} AND ended_at IS NULL`,
    );
    await recordAudit(tx, {
      actor: systemActor("provisioning"),
      requestId: task.requestId ?? undefined,
      tenantId: pod.tenantId,
      action: "pod.deleted",
      targetType: "pod",
      targetId: pod.id,
    });
    return { kind: "done", message: "The pod is deleted" };
  },
};

/**
 * Whether the pod's host has confirmed that nothing of it is there. Of a host that was given up nobody asks that: the removal
 * was answered for it, or the pod had lost its place before.
 */
async function isKnownGone(tx: Queryable, { id, nodeId }: Pod): Promise<boolean> {
  if (nodeId === null) return false;
  const [removal] = await tx.query<{ isAnsweredFor: boolean }>(sql`
    SELECT error_code IS NOT DISTINCT FROM 'NODE_EVACUATED' AS "isAnsweredFor" FROM node_commands
    WHERE pod_id = ${id} AND node_id = ${nodeId} AND op = 'ensure_absent' ORDER BY id DESC LIMIT 1`);
  return removal?.isAnsweredFor !== true;
}

/** After its last backup the pod goes as any other; one without has been going since it was asked for. */
const beginRemovalStep: Step = {
  name: "begin-removal",
  percent: 10,
  attemptsMax: 10,
  async begin({ tx, task, now }) {
    const pod = await lockPodById(tx, task.podId);
    if (pod.status === "deleting") return { kind: "done", message: "The pod is being removed" };
    await beginRemoval(tx, pod, now);
    return { kind: "done", message: "The last backup is there; the pod is being removed" };
  },
};

/** The pod and everything of it goes, but for a last backup that was asked for. */
export const destroyPod: Saga = {
  type: "destroy",
  deadlineMs: destroyDeadlineMs,
  steps: [makeArchiveStep, verifyArchiveStep, beginRemovalStep, removeContainerStep("remove"), releaseStep],
  undo: [],
  async finish({ tx, task }, end) {
    if (end === "succeeded") return;
    await failBackup(tx, task);
    const pod = await lockPodById(tx, task.podId);
    // Without its last backup nothing was begun.
    if (pod.status === "deleting") await changePodStatus(tx, pod, "delete-failed");
    await tx.execute(sql`
      UPDATE cloud_pods SET last_error_code = ${task.errorCode}, last_error_message = ${task.errorMessage} WHERE id = ${pod.id}`);
  },
};
