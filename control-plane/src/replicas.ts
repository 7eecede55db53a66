import { hostname } from "node:os";
import type { Role } from "./config.ts";
import type { Queryable } from "./platform/database.ts";
import { sql } from "./platform/sql.ts";

/** What this replica tells the others. */
export interface ReplicaFacts {
  readonly id: string;
  readonly roles: ReadonlySet<Role>;
  readonly gatewayAddress: string | null;
  /** Set while the embedded broker runs here. */
  readonly brokerUrl: string | null;
  /** Certificate authorities that it believes. */
  readonly authorityIds: readonly string[];
  readonly signingAuthorityId: string;
}

/** Writes that the replica is alive; repeated every ten seconds. */
export async function announceReplica(db: Queryable, replica: ReplicaFacts): Promise<void> {
  await db.execute(sql`
    INSERT INTO control_plane_replicas (id, hostname, roles, gateway_address, broker_url, authority_ids, signing_authority_id)
    VALUES (${replica.id}, ${hostname()}, ${[...replica.roles]}, ${replica.gatewayAddress}, ${replica.brokerUrl}, ${[...replica.authorityIds]}::uuid[], ${replica.signingAuthorityId})
    ON CONFLICT (id) DO UPDATE SET seen_at = now(), gateway_address = excluded.gateway_address, broker_url = excluded.broker_url,
      authority_ids = excluded.authority_ids, signing_authority_id = excluded.signing_authority_id`);
  await db.execute(sql`DELETE FROM control_plane_replicas WHERE seen_at < now() - interval '1 day'`);
}

/** The replica says good-bye. */
export async function withdrawReplica(db: Queryable, id: string): Promise<void> {
  await db.execute(sql`DELETE FROM control_plane_replicas WHERE id = ${id}`);
}

/** Where the embedded broker listens: on the replica that announced one last; undefined when there is none. */
export async function findEmbeddedBroker(db: Queryable): Promise<string | undefined> {
  const [row] = await db.query<{ url: string }>(sql`
    SELECT broker_url AS url FROM control_plane_replicas
    WHERE broker_url IS NOT NULL AND seen_at > now() - interval '1 minute' ORDER BY seen_at DESC LIMIT 1`);
  return row?.url;
}
