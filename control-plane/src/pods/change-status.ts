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
  if (next === undefined) throw wrongState(pod.status, podStatusesAccepting(event));
  const changed = await tx.execute(sql`
    UPDATE cloud_pods SET status = ${next}, version = version + 1, updated_at = now() WHERE id = ${pod.id} AND status = ${pod.status}`);
  if (changed === 0) throw new DomainError("conflict", "POD_CHANGED", "The pod changed at the same time; try again.");
  return next;
}

/**
 * Requires that a pod is active, for what does not move it along its lifecycle.
 * @throws DomainError `POD_WRONG_STATE`
 */
export function requireActive({ status }: Pick<Pod, "status">): void {
  if (status !== "active") throw wrongState(status, ["active"]);
}

function wrongState(status: PodStatus, allowed: readonly PodStatus[]): DomainError {
  const message = `The pod is ${status}; this needs a pod that is ${allowed.join(" or ")}.`;
  return new DomainError("wrong-state", "POD_WRONG_STATE", message, { details: { status, allowed } });
}
