import { ContainerObservation, type Inventory } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** The newest inventory of a host from which something may be concluded. */
export interface LatestInventory {
  /** Rises with each inventory of the host. */
  readonly number: bigint;
  /** When the host looked; never later than when we heard of it. */
  readonly observedAt: Date;
  readonly containers: readonly ContainerObservation[];
}

/**
 * Keeps an inventory that its host trusts, until the next one. Without quorum it is kept too little in sync with the
 * cluster for anything to follow from it, and the former one stays.
 */
export async function keepInventory(tx: Queryable, nodeId: string, inventory: Inventory): Promise<void> {
  if (!inventory.quorate) return;
  const containers = JSON.stringify(inventory.containers.map(shortened));
  await tx.execute(sql`
    INSERT INTO node_inventories AS i (node_id, observed_at, containers)
    VALUES (${nodeId}, least(now(), to_timestamp(${Number(inventory.observedAtMs)}::float8 / 1000)), ${containers})
    ON CONFLICT (node_id) DO UPDATE SET number = i.number + 1, received_at = now(), observed_at = excluded.observed_at, containers = excluded.containers
    WHERE i.observed_at <= excluded.observed_at`);
}

/** What only matters of containers that are nobody's is left out of the many that are ours. */
function shortened(container: ContainerObservation): unknown {
  const isOurs = container.podId !== "";
  return ContainerObservation.toJSON(isOurs ? { ...container, network: undefined, ip: "" } : container);
}

/** The newest inventory of a host; undefined while there is none. */
export async function readLatestInventory(db: Queryable, nodeId: string): Promise<LatestInventory | undefined> {
  const [row] = await db.query<{ number: bigint; observedAt: Date; containers: unknown[] }>(sql`
    SELECT number, observed_at AS "observedAt", containers FROM node_inventories WHERE node_id = ${nodeId}`);
  return row && { ...row, containers: row.containers.map((container) => ContainerObservation.fromJSON(container)) };
}
