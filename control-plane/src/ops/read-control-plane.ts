import { durabilitySettings } from "../platform/durability.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** A copy of the control plane. */
export interface ReplicaRow {
  readonly id: string;
  readonly hostname: string;
  readonly roles: readonly string[];
  readonly runsBroker: boolean;
  readonly startedAt: Date;
  readonly seenAt: Date;
  /** Seen within the last minute. */
  readonly alive: boolean;
}

/** The copies of the control plane and the database that they share. */
export interface ControlPlaneState {
  readonly at: Date;
  readonly replicas: readonly ReplicaRow[];
  readonly fleetEpoch: bigint;
  readonly holdsOrders: boolean;
  readonly database: Readonly<Record<string, string>>;
}

/** Reads what runs the platform, and the instant of the transaction. */
export async function readControlPlane(db: Queryable): Promise<ControlPlaneState> {
  const [replicas, [epoch], database] = await Promise.all([
    db.query<ReplicaRow>(sql`
      SELECT id, hostname, roles, broker_url IS NOT NULL AS "runsBroker", started_at AS "startedAt", seen_at AS "seenAt",
        seen_at > now() - interval '1 minute' AS alive
      FROM control_plane_replicas ORDER BY started_at, id`),
    db.query<{ at: Date; fleetEpoch: bigint; holdsOrders: boolean }>(
      sql`SELECT now() AS at, epoch AS "fleetEpoch", holds_orders AS "holdsOrders" FROM control_plane_epoch`,
    ),
    durabilitySettings(db),
  ]);
  if (epoch === undefined) throw new Error("the fleet has no epoch");
  return { ...epoch, replicas, database };
}
