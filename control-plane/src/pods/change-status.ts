import { DomainError } from "@cloudpods/shared/errors";
import { nextPodStatus, podStatusesAccepting, type PodEvent, type PodStatus } from "@cloudpods/shared/pod-lifecycle";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "./pod.ts";

/**
 * Moves a pod along its lifecycle.
 * @throws DomainError `POD_WRONG_STATE` when the table refuses the event; `POD_CHANGED` when the row is no longer as read.
 */
export async function changePodStatus(
  tx: Queryable,
  pod: Pick<Pod, "id" | "status">,
  event: PodEvent,
): Promise<PodStatus> {
  const next = nextPodStatus(pod.status, event);
  if (next === undefined) throw wrongState(pod.status, event);
  const changed = await tx.execute(sql`
    UPDATE cloud_pods SET status = ${next}, version = version + 1, updated_at = now() WHERE id = ${pod.id} AND status = ${pod.status}`);
  if (changed === 0) throw new DomainError("conflict", "POD_CHANGED", "The pod changed at the same time; try again.");
  return next;
}

function wrongState(status: PodStatus, event: PodEvent): DomainError {
  const accepting = podStatusesAccepting(event);
  return new DomainError(
    "wrong-state",
    "POD_WRONG_STATE",
    `The pod is ${status}; this needs a pod that is ${accepting.join(" or ")}.`,
    {
      details: { status, allowed: accepting },
    },
  );
}
