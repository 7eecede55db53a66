import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { reserveQuota } from "../quotas/reserve-quota.ts";
import type { Task } from "../tasks/task.ts";
import { resizeInput, wantSize } from "./change-size.saga.ts";
import { changePodStatus } from "./change-status.ts";
import { requireStartable } from "./holds.ts";
import { lockPodById } from "./pod.ts";
import { quotaOf } from "./release-pod.ts";

/**
 * Brings a pod back to where its failed task can begin anew: what the failure gave back is taken again,
 * with the same checks.
 * @throws DomainError `QUOTA_EXCEEDED`, `NO_CAPACITY`, `POD_WRONG_STATE`, `POD_ON_HOLD`, `BUDGET_EXHAUSTED`
 */
export async function prepareRetry(tx: Queryable, task: Task): Promise<void> {
  const pod = await lockPodById(tx, task.podId);
  switch (task.type) {
    case "create":
      await reserveQuota(tx, pod.tenantId, quotaOf(pod));
      await changePodStatus(tx, pod, "retried");
      // A new place is a new generation, and an id that somebody else has is no use; a pod whose removal failed keeps its place.
      await tx.execute(sql`
        UPDATE cloud_pods SET generation = generation + 1,
          vmid = CASE WHEN last_error_code = 'VMID_CONFLICT' THEN next_vmid() ELSE vmid END
        WHERE id = ${pod.id} AND node_id IS NULL`);
      return;
    case "resize":
      await wantSize(tx, pod, resizeInput.parse(task.input).to);
      return;
    case "destroy":
      await changePodStatus(tx, pod, "delete-asked");
      return;
    case "start":
    case "restart":
    case "resume":
      await requireStartable(tx, pod);
      return;
    default:
      // What power changes want is written in the pod's row already.
      return;
  }
}
