import { DomainError } from "@cloudpods/shared/errors";
import { countBackupsOnlyOn } from "../backups/backup-storage.ts";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { releaseClaim } from "../scheduling/change-claim.ts";
import { lockNode, recordChange, type NodeChangeBy } from "./change-node.ts";
import { revokeCertificates } from "./node-certificates.ts";

/** What the removal of a host ended. */
export interface RemovedNode {
  /** Ids of commands that were still open and are cancelled now. */
  readonly cancelled: readonly string[];
  /** Backups that only this host could reach: they are written off within seconds, and their tenants told. */
  readonly backupsGone: number;
}

/**
 * Takes a host out of the fleet: its certificates are revoked, its sessions end within a second, its
 * capacity is nothing. Its history stays. After the commit send the hint `node_sessions`.
 *
 * @throws DomainError `not-found` NODE_NOT_FOUND; `wrong-state` NODE_NOT_EMPTY.
 */
export async function removeNode(tx: Transaction, nodeId: string, by: NodeChangeBy): Promise<RemovedNode> {
  const { name } = await lockNode(tx, nodeId);
  const [gone] = await tx.query(
    sql`SELECT FROM node_status WHERE node_id = ${nodeId} AND state IN ('offline', 'lost')`,
  );
  const isGone = gone !== undefined;
  await tx.execute(sql`
    UPDATE node_status SET state = 'removed', state_since = now(), session_epoch = session_epoch + 1, session_connected = false WHERE node_id = ${nodeId}`);
  // An order claims by this row: after the lock none is under way, afterwards none finds room.
  await tx.query(sql`SELECT FROM node_capacity WHERE node_id = ${nodeId} FOR UPDATE`);
  if (isGone) await releaseLeftClaims(tx, nodeId);
  const backupsGone = await countBackupsOnlyOn(tx, nodeId);
  await refuseOccupied(tx, nodeId, isGone, backupsGone);
  await tx.execute(
    sql`UPDATE nodes SET removed_at = now(), schedulable = false, version = version + 1 WHERE id = ${nodeId}`,
  );
  await tx.execute(sql`UPDATE node_capacity SET cpu_total = 0, memory_total_mb = 0 WHERE node_id = ${nodeId}`);
  await tx.execute(sql`UPDATE storages SET total_gb = 0 WHERE node_id = ${nodeId}`);
  await revokeCertificates(tx, nodeId);
  await tx.execute(
    sql`UPDATE join_tokens SET revoked_at = coalesce(revoked_at, now()) WHERE node_id = ${nodeId} OR replaces_node = ${nodeId}`,
  );
  await tx.execute(sql`DELETE FROM node_conditions WHERE node_id = ${nodeId}`);
  await tx.execute(sql`DELETE FROM unmanaged_containers WHERE node_id = ${nodeId}`);
  await tx.execute(sql`DELETE FROM node_inventories WHERE node_id = ${nodeId}`);
  await tx.execute(sql`
    UPDATE node_findings SET state = 'resolved', resolved_at = now(), resolved_by = ${`${by.actor.kind}:${by.actor.id}`}, resolution = 'node-removed'
    WHERE node_id = ${nodeId} AND state <> 'resolved'`);
  await tx.execute(sql`DELETE FROM node_storages WHERE node_id = ${nodeId}`);
  const cancelled = await tx.query<{ id: string }>(sql`
    UPDATE node_commands SET state = 'cancelled', finished_at = now(), error_code = 'NODE_REMOVED', error_message = 'The node was removed.'
    WHERE node_id = ${nodeId} AND state IN ('pending', 'sent', 'accepted', 'running') RETURNING id`);
  await recordChange(tx, nodeId, by, {
    action: "node.remove",
    kind: "REMOVED",
    message: `${name} was removed`,
    detail: { name, backupsGone },
  });
  return { cancelled: cancelled.map((command) => command.id), backupsGone };
}

/** What a host that is gone held of pods that live elsewhere now, or nowhere, went with it. */
async function releaseLeftClaims(tx: Transaction, nodeId: string): Promise<void> {
  const left = await tx.query<{ podId: string; generation: bigint }>(sql`
    SELECT k.pod_id AS "podId", k.generation FROM node_claims k JOIN cloud_pods p ON p.id = k.pod_id
    WHERE k.node_id = ${nodeId} AND p.node_id IS DISTINCT FROM k.node_id
      AND NOT EXISTS (SELECT FROM cloud_pod_moves m WHERE m.pod_id = k.pod_id AND m.state IN ('reserved', 'moving')) ORDER BY k.id`);
  for (const { podId, generation } of left) await releaseClaim(tx, podId, generation);
}

async function refuseOccupied(tx: Transaction, nodeId: string, isGone: boolean, backups: number): Promise<void> {
  const [held] = await tx.query<{ pods: number; claims: number }>(sql`
    SELECT (SELECT count(*)::integer FROM cloud_pods WHERE node_id = ${nodeId} AND status <> 'deleted') AS pods,
      (SELECT count(*)::integer FROM node_claims WHERE node_id = ${nodeId}) AS claims`);
  if (held === undefined || (held.pods === 0 && held.claims === 0)) return;
  // Nothing moves from a host that does not answer.
  const what = isGone ? "evacuate it first, which needs it to be cut off for good" : "move or destroy them first";
  throw new DomainError(
    "wrong-state",
    "NODE_NOT_EMPTY",
    `The node still holds pods or room for pods; ${what}.${backups === 0 ? "" : ` With it would go ${backups} backups that no other host sees.`}`,
    { details: { ...held, backups } },
  );
}
