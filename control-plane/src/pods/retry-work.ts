import { isDeepStrictEqual } from "node:util";
import { DomainError } from "@cloudpods/shared/errors";
import { backupIdOf } from "../backups/archive-steps.ts";
import { lockBackup } from "../backups/backup.ts";
import { requireRestorable } from "../backups/require-restorable.ts";
import { resolvePlan } from "../plans/resolve-plan.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { reserveQuota } from "../quotas/reserve-quota.ts";
import type { Task } from "../tasks/task.ts";
import { outdated } from "../tasks/change-task.ts";
import { wantPower } from "./change-power.ts";
import { resizeInput, sizeOf, wantSize } from "./change-size.saga.ts";
import { changePodStatus } from "./change-status.ts";
import { requireStartable } from "./holds.ts";
import { requirePlanFree } from "./plan-limits.ts";
import { lockPodById, type Pod } from "./pod.ts";
import { orderDeadlineMs } from "./provision-pod.saga.ts";
import { quotaOf } from "./release-pod.ts";

/**
 * Brings a pod back to where its failed task can begin anew: what the failure gave back is taken again,
 * with the same checks, and only while the pod is still what it was then.
 * @throws DomainError `QUOTA_EXCEEDED`, `NO_CAPACITY`, `PLAN_LIMIT_REACHED`, `POD_WRONG_STATE`, `POD_ON_HOLD`, `BUDGET_EXHAUSTED`,
 *   `TASK_OUTDATED`, `TASK_NOT_RETRYABLE`; for a restore `BACKUP_NOT_FOUND` and as `requireRestorable`
 * @returns how long the task may take, ms; undefined: as tasks of its kind
 */
export async function prepareRetry(tx: Queryable, task: Task): Promise<number | undefined> {
  const pod = await lockPodById(tx, task.podId);
  if (task.type === "create") {
    await retryOrder(tx, pod);
    return orderDeadlineMs(pod.sourceVolumeId !== null);
  }
  await prepareChange(tx, task, pod);
  return undefined;
}

async function prepareChange(tx: Queryable, task: Task, pod: Pod): Promise<void> {
  switch (task.type) {
    case "resize": {
      const { from, to } = resizeInput.parse(task.input);
      if (pod.status !== "active" || !isDeepStrictEqual(from, sizeOf(pod))) throw outdated();
      await wantSize(tx, pod, to);
      return;
    }
    case "destroy":
      if (pod.status === "active" || pod.status === "suspended")
        throw notRetryable("No last backup could be made and nothing was removed; ask for the removal anew.");
      await changePodStatus(tx, pod, "delete-asked");
      return;
    case "backup":
      throw notRetryable("A backup that failed is asked for anew.");
    case "restore":
      if (pod.status !== "active" && pod.status !== "suspended") throw outdated();
      await requireRestorable(tx, pod, await lockBackup(tx, pod, backupIdOf(task) ?? ""));
      return;
    case "start":
    case "restart":
    case "resume":
      if (pod.status !== "active") throw outdated();
      await requireStartable(tx, pod);
      await wantPower(tx, pod, "running");
      return;
    case "stop":
      if (pod.status !== "active") throw outdated();
      // A stop of the system's own (a spent budget) is a hold: what the customer wants stays, to be given back.
      if (!task.requestedBy.startsWith("system:")) await wantPower(tx, pod, "stopped");
      return;
    case "set-rate":
      if (pod.status !== "active") throw outdated();
      return;
    case "migrate":
      // Its place was given back; a new move looks for a new one.
      throw notRetryable("A move that failed is asked for anew.");
    default:
      if (pod.status !== "suspended") throw outdated();
  }
}

function notRetryable(detail: string): DomainError {
  return new DomainError("wrong-state", "TASK_NOT_RETRYABLE", detail);
}

async function retryOrder(tx: Queryable, pod: Pod): Promise<void> {
  await reserveQuota(tx, pod.tenantId, quotaOf(pod));
  if (pod.planCode !== null) await requirePlanFree(tx, pod.tenantId, await resolvePlan(tx, pod.planCode), pod.id);
  await changePodStatus(tx, pod, "retried");
  // A new place is a new generation, and an id that somebody else has is no use; a pod whose removal failed keeps its place.
  await tx.execute(sql`
    UPDATE cloud_pods SET generation = generation + 1,
      vmid = CASE WHEN last_error_code = 'VMID_CONFLICT' THEN next_vmid() ELSE vmid END
    WHERE id = ${pod.id} AND node_id IS NULL`);
}
