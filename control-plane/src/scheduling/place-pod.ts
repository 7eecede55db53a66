import type { Queryable } from "../platform/database.ts";
import type { FleetView } from "./fleet-view.ts";
import type { PlacementRequest } from "./placement-request.ts";
import type { PlacementVerdict } from "./verdict.ts";

/** A pod that looks for its place. Its row exists already in the transaction. */
export interface PodToPlace {
  readonly tenantId: string;
  readonly podId: string;
  readonly vmid: number;
  /** Of the placement that this call makes. */
  readonly generation: bigint;
  readonly request: PlacementRequest;
}

/** The place that a pod got, and what its row and its container need to know of it. */
export interface Placement {
  readonly nodeId: string;
  readonly node: string;
  readonly region: string;
  readonly storageId: string;
  /** Name of the storage for the root disk. */
  readonly storage: string;
  readonly bridge: string;
  readonly pool: string | null;
  /** `ct:<vmid>` of a template container, or the volume id of an archive. */
  readonly template: string;
  /** To be stored with the pod. */
  readonly verdict: PlacementVerdict;
}

/**
 * Chooses a node, claims its capacity and writes the claim and the placement history. Call it as the last
 * but the writes that need its answer: it holds the node's row until the transaction ends. Works under
 * both logins. Losing a race means the next candidate; before it gives up it looks at the fleet afresh.
 * @throws NoCapacityError (NO_CAPACITY, 503) when no node can take the pod
 */
export async function placePod(tx: Queryable, fleet: FleetView, pod: PodToPlace): Promise<Placement> {
  throw new Error(`no place for ${pod.podId} before ${String(fleet)} and ${String(tx)} exist`);
}

/** Where a pod would be placed now; nothing is claimed. `chosen` is null when there is no place. */
export async function previewPlacement(
  tx: Queryable,
  fleet: FleetView,
  tenantId: string,
  request: PlacementRequest,
): Promise<PlacementVerdict> {
  throw new Error(`no preview for ${tenantId} ${String(tx)} ${String(fleet)} ${String(request)}`);
}
