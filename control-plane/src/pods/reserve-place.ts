import { newId } from "@cloudpods/shared/ids";
import { hostsSeeing } from "../backups/backup-storage.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { placePod } from "../scheduling/place-pod.ts";
import type { PlacementRequest } from "../scheduling/placement-request.ts";
import type { PlacementWish } from "./placement-wish.ts";
import { lockPodById, type Pod } from "./pod.ts";

/**
 * Gives a pod without a place one: claim, placement history, and what its row must know of the host.
 * @returns the pod as it is now
 * @throws DomainError `NO_CAPACITY`
 */
export async function reservePlace(tx: Queryable, fleet: FleetView, pod: Pod): Promise<Pod> {
  const place = await placePod(tx, fleet, {
    tenantId: pod.tenantId,
    podId: pod.id,
    vmid: pod.vmid,
    generation: pod.generation,
    request: await requestOf(tx, pod),
  });
  await tx.execute(sql`
    UPDATE cloud_pods SET node_id = ${place.nodeId}, region = ${place.region}, storage = ${place.storage}, bridge = ${place.bridge},
      pool = ${place.pool}, template = coalesce(${place.template}, template), placement_verdict = ${JSON.stringify(place.verdict)} WHERE id = ${pod.id}`);
  await tx.execute(sql`
    INSERT INTO cloud_pod_addresses (id, tenant_id, pod_id, mac) VALUES (${newId()}, ${pod.tenantId}, ${pod.id}, ${pod.mac})`);
  return await lockPodById(tx, pod.id);
}

/**
 * What a pod, there or ordered, needs of its first node. One that is made from a backup needs no template, but a host that
 * sees the archive.
 */
export async function requestOf(
  tx: Queryable,
  pod: Parameters<typeof placementRequestOf>[0] & Pick<Pod, "template" | "sourceBackupId">,
): Promise<PlacementRequest> {
  if (pod.sourceBackupId === null) return placementRequestOf(pod, pod.template ?? undefined);
  return {
    ...placementRequestOf(pod, undefined),
    template: null,
    only: await hostsSeeing(tx, { id: pod.sourceBackupId }),
    capabilities: ["restore"],
  };
}

/** What a pod needs of any node. */
export function placementRequestOf(
  pod: {
    readonly cores: number;
    readonly memoryMb: number;
    readonly diskGb: number;
    readonly region: string;
    readonly placementRequest: PlacementWish;
  },
  template: string | undefined,
): PlacementRequest {
  const { nodeLabels, antiAffinity } = pod.placementRequest;
  return {
    cores: pod.cores,
    memoryMb: pod.memoryMb,
    diskGb: pod.diskGb,
    region: pod.region,
    ...(template === undefined ? {} : { template }),
    ...(nodeLabels === undefined ? {} : { nodeLabels }),
    ...(antiAffinity === undefined ? {} : { antiAffinity }),
  };
}
