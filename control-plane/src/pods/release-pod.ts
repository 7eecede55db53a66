import { countsAgainstQuota } from "@cloudpods/shared/pod-lifecycle";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { releaseQuota } from "../quotas/reserve-quota.ts";
import { releaseClaim } from "../scheduling/change-claim.ts";
import { releaseAddress } from "./addresses.ts";
import { closeAllocation } from "./allocations.ts";
import { changePodStatus } from "./change-status.ts";
import { nextGeneration } from "./next-generation.ts";
import type { Pod } from "./pod.ts";

/** What a pod takes of its tenant's quota. */
export function quotaOf(pod: Pick<Pod, "cores" | "memoryMb" | "diskGb">): {
  pods: 1;
  cpuCores: number;
  memoryMb: number;
  diskGb: number;
} {
  return { pods: 1, cpuCores: pod.cores, memoryMb: pod.memoryMb, diskGb: pod.diskGb };
}

/** Gives the tenant's quota back, once: only pods in a state that counts hold any. Call it before the state changes. */
export async function freeQuota(tx: Queryable, pod: Pod): Promise<void> {
  if (countsAgainstQuota(pod.status)) await releaseQuota(tx, pod.tenantId, quotaOf(pod));
}

/**
 * Gives the host's capacity back and ends the pod's place there. Only after the host confirmed that the
 * container is gone, since until then it occupies the host.
 */
export async function vacate(tx: Queryable, pod: Pod, now: Date): Promise<void> {
  await releaseClaim(tx, pod.id, pod.generation);
  await endPlace(tx, pod, now);
}

/**
 * Ends the place, if any, of a pod whose host was given up and has confirmed nothing: should it come back, what it has of
 * the pod occupies it. A claim there stays until it has removed that, as one of a former generation.
 */
export async function leaveBehind(tx: Queryable, pod: Pod, now: Date): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_placements SET placed_to = ${now} WHERE pod_id = ${pod.id} AND generation = ${pod.generation} AND placed_to IS NULL`);
  // One above the pod's own may be that of a move that came to nothing: what it has left would look like the pod's.
  await tx.execute(sql`UPDATE cloud_pods SET generation = ${await nextGeneration(tx, pod)} WHERE id = ${pod.id}`);
  await endPlace(tx, pod, now);
}

async function endPlace(tx: Queryable, pod: Pod, now: Date): Promise<void> {
  await closeAllocation(tx, pod.id, pod.deletionRequestedAt ?? now);
  await releaseAddress(tx, pod.id);
  await tx.execute(sql`
    UPDATE cloud_pods SET node_id = NULL, ip = NULL, observed_power = 'unknown', observed_at = ${now} WHERE id = ${pod.id}`);
}

/** The pod goes from now on: it counts no more and is paid for no more. */
export async function beginRemoval(tx: Queryable, pod: Pod, now: Date): Promise<void> {
  await freeQuota(tx, pod);
  await changePodStatus(tx, pod, "delete-asked");
  await tx.execute(sql`
    UPDATE cloud_pods SET desired_power = 'stopped', deletion_requested_at = coalesce(deletion_requested_at, ${now}) WHERE id = ${pod.id}`);
}
