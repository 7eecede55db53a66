import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";

/**
 * To be called after the database was restored from a backup or lost its last commits in a failover. Hosts
 * are ahead of it then: the epoch makes them accept its commands again, and orders wait until every host has
 * said which containers it has, so that no id in use is given away.
 * @returns the new epoch
 */
export async function declareRestored(tx: Transaction, reason: string): Promise<bigint> {
  const [row] = await tx.query<{ epoch: bigint }>(sql`
    UPDATE control_plane_epoch SET declared_at = now(), reason = ${reason}, holds_orders = true,
      epoch = greatest(epoch, (SELECT coalesce(max(fleet_epoch), 0) FROM node_status)) + 1
    RETURNING epoch`);
  if (row === undefined) throw new Error("control_plane_epoch has no row");
  await tx.query(sql`
    SELECT setval('vmid_seq', greatest((SELECT last_value FROM vmid_seq), (SELECT coalesce(max(vmid), 0) FROM cloud_pods),
      (SELECT coalesce(max(vmid), 0) FROM reserved_vmids), (SELECT coalesce(max(vmid), 0) FROM unmanaged_containers)))`);
  await recordAudit(tx, {
    actor: systemActor("administrator on the command line"),
    requestId: undefined,
    tenantId: undefined,
    action: "fleet.declare-restored",
    targetType: "fleet",
    targetId: undefined,
    detail: { epoch: row.epoch, reason },
  });
  return row.epoch;
}

/** Hosts `n` with their status `s` whose inventory has not been seen since the restore `e`; those given up on do not count. */
const awaited: Sql = sql`nodes n JOIN node_status s ON s.node_id = n.id
  WHERE n.removed_at IS NULL AND n.role = 'hypervisor' AND s.state <> 'lost' AND (s.inventory_at IS NULL OR s.inventory_at < e.declared_at)`;

/** Names of the hosts that are awaited after a restore. */
export async function hostsToCompare(tx: Queryable): Promise<string[]> {
  const rows = await tx.query<{ name: string }>(sql`
    SELECT name FROM control_plane_epoch e CROSS JOIN LATERAL (SELECT n.name FROM ${awaited}) AS host WHERE e.holds_orders ORDER BY name`);
  return rows.map((row) => row.name);
}

/**
 * Requires that no restore is being digested. Works under both logins.
 * @throws DomainError `RESTORE_IN_PROGRESS` naming how many hosts are still awaited
 */
export async function requireNoRestore(tx: Queryable): Promise<void> {
  const [epoch] = await tx.query<{ held: boolean }>(sql`SELECT holds_orders AS held FROM control_plane_epoch`);
  if (epoch?.held !== true) return;
  const hosts = await hostsToCompare(tx);
  if (hosts.length === 0) return;
  throw new DomainError(
    "unavailable",
    "RESTORE_IN_PROGRESS",
    "Orders wait until every host has reported after a restore.",
    {
      details: { hostsAwaited: hosts.length },
      retryAfterSeconds: 30,
    },
  );
}

/** Ends the hold once every host has reported. @returns whether it was ended just now */
export async function endRestore(db: Queryable): Promise<boolean> {
  // In one statement: another restore may be declared at any moment, and that one waits for every host anew.
  const ended = await db.execute(
    sql`UPDATE control_plane_epoch e SET holds_orders = false WHERE holds_orders AND NOT EXISTS (SELECT FROM ${awaited})`,
  );
  return ended > 0;
}
