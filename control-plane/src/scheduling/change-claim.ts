import type { Queryable } from "../platform/database.ts";

/** What a claim occupies, or by how much it changes. */
export interface Footprint {
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/**
 * Gives back what a placement of a pod occupies and ends its placement history. To be called when the
 * host confirmed that the container is gone. Doing it twice is as good as once. Owner's login.
 */
export async function releaseClaim(tx: Queryable, podId: string, generation: bigint): Promise<void> {
  throw new Error(`cannot release ${podId} ${generation} ${String(tx)}`);
}

/**
 * Changes what a pod occupies on its node. Less is always possible.
 * @throws DomainError `no-capacity` NO_CAPACITY when an increase does not fit the node or its storage
 */
export async function growClaim(tx: Queryable, podId: string, delta: Footprint): Promise<void> {
  throw new Error(`cannot grow ${podId} ${String(delta)} ${String(tx)}`);
}
