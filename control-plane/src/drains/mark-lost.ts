import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { releaseAddress } from "../pods/addresses.ts";
import { closeAllocation } from "../pods/allocations.ts";
import { changePodStatus } from "../pods/change-status.ts";
import type { Pod } from "../pods/pod.ts";
import { freeQuota } from "../pods/release-pod.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { Drain } from "./drain.ts";

/**
 * A pod that cannot be brought back: it has no place any more and costs nothing from now on. The claim on its old host stays
 * until that is back or removed: what is left of the pod, if anything, is there.
 */
export async function markLost(tx: Transaction, pod: Pod, drain: Drain): Promise<void> {
  await freeQuota(tx, pod);
  if (pod.status !== "failed") await changePodStatus(tx, pod, "lost");
  await closeAllocation(tx, pod.id, new Date());
  await releaseAddress(tx, pod.id);
  await tx.execute(sql`
    UPDATE cloud_pod_placements SET placed_to = now() WHERE pod_id = ${pod.id} AND generation = ${pod.generation} AND placed_to IS NULL`);
  await tx.execute(sql`
    UPDATE cloud_pods SET node_id = NULL, ip = NULL, observed_power = 'unknown', observed_at = now(), last_error_code = 'POD_LOST',
      last_error_message = 'The pod''s host is gone and there is no backup of it that could be restored elsewhere.' WHERE id = ${pod.id}`);
  await recordAudit(tx, {
    actor: systemActor("drains"),
    requestId: drain.requestId,
    tenantId: pod.tenantId,
    action: "pod.lost",
    targetType: "pod",
    targetId: pod.id,
    detail: { node: drain.node, reason: drain.reason },
  });
}
