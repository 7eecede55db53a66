import { seesBackup } from "../backups/backup-storage.ts";
import { insertCommand } from "../nodes/send-command.ts";
import type { Database, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { lockMove, noteInstants } from "./move.ts";

/** A move deletes its archive itself as long as it is under way; what it left is looked at this long after its end. */
const graceMs = 600_000;
/** Between two tries at one archive, twice as long after each. */
const retryFirstMs = 60_000;
const retryMaxMs = 6 * 3_600_000;
const deleteTimeoutMs = 1_800_000;
const batchMax = 50;

interface LeftArchive {
  readonly moveId: string;
  readonly tenantId: string;
  readonly podId: string;
  readonly vmid: number;
  readonly generation: bigint;
  readonly revision: bigint;
  readonly volumeId: string;
  readonly isGone: boolean;
  /** That sees it; null: none does at present. */
  readonly nodeId: string | null;
}

/** What one pass did. */
export interface LeftArchivesPass {
  /** Hosts that were told to delete something. */
  readonly asked: readonly string[];
  readonly removed: number;
}

/**
 * Deletes the archives of moves that are over and could not delete them themselves. One command at a time is open for an
 * archive, at any host that sees it.
 */
export async function clearLeftArchives(db: Database, grace = graceMs): Promise<LeftArchivesPass> {
  const left = await db.query<LeftArchive>(sql`${selectLeft(grace)} ORDER BY m.ended_at LIMIT ${batchMax}`);
  const asked: string[] = [];
  let removed = 0;
  for (const { moveId, podId } of left) {
    const did = await db.transaction((tx) => clear(tx, moveId, podId, grace));
    if (did === "removed") removed += 1;
    else if (did !== undefined) asked.push(did.askedAt);
  }
  return { asked, removed };
}

/** Archives about which something can be done now: a host has said that it is gone, or one can be asked. */
function selectLeft(grace: number): Sql {
  return sql`
    SELECT m.id AS "moveId", m.tenant_id AS "tenantId", m.pod_id AS "podId", p.vmid, p.revision, m.archive_volume_id AS "volumeId",
      -- A move that came to nothing has left its generation on the host: below that it refuses everything.
      1 + greatest(p.generation, (SELECT max(o.to_generation) FROM cloud_pod_moves o WHERE o.pod_id = p.id)) AS generation,
      past.is_gone AS "isGone", host.id AS "nodeId"
    FROM cloud_pod_moves m JOIN cloud_pods p ON p.id = m.pod_id
    CROSS JOIN LATERAL (
      -- Those of the move's own task too: its last one may still be under way.
      SELECT coalesce(bool_or(c.state = 'succeeded'), false) AS is_gone, coalesce(bool_or(c.finished_at IS NULL), false) AS is_open,
        max(c.finished_at) AS tried_at, count(*) FILTER (WHERE c.task_id IS NULL) AS tries
      FROM node_commands c WHERE c.pod_id = m.pod_id AND c.op = 'delete_backup' AND c.command #>> '{deleteBackup,volumeId}' = m.archive_volume_id) past
    LEFT JOIN LATERAL (
      SELECT v.node_id AS id
      FROM nodes n JOIN storages a ON a.name = m.archive_storage AND (a.node_id = n.id OR a.cluster_id = n.cluster_id)
      CROSS JOIN LATERAL (SELECT a.id AS storage_id) b
      JOIN node_storages v ON v.available AND ${seesBackup} JOIN node_status s ON s.node_id = v.node_id
      WHERE n.id IN (m.from_node_id, m.to_node_id) AND s.state IN ('online', 'degraded') AND s.session_connected AND 'delete_backup' = ANY(s.capabilities)
      ORDER BY v.node_id = m.to_node_id DESC, v.node_id LIMIT 1) host ON true
    WHERE m.state IN ('moved', 'undone', 'released') AND m.ended_at < now() - ${grace} * interval '1 ms'
      AND m.archive_is_ours AND m.archive_volume_id IS NOT NULL AND m.archive_removed_at IS NULL
      -- Its source had given the container up and the target does not own it: the archive may be all that there is.
      AND (m.source_freed_at IS NULL OR m.switched_at IS NOT NULL)
      AND (past.is_gone OR (host.id IS NOT NULL AND NOT past.is_open AND (past.tried_at IS NULL
        OR past.tried_at < now() - least(${retryMaxMs}, ${retryFirstMs} * 2 ^ least(past.tries, 20)) * interval '1 ms')))`;
}

/** @returns undefined when there is nothing to do any more */
async function clear(
  tx: Transaction,
  moveId: string,
  podId: string,
  grace: number,
): Promise<"removed" | { readonly askedAt: string } | undefined> {
  // Pod before move, as everybody who needs both.
  await tx.query(sql`SELECT FROM cloud_pods WHERE id = ${podId} FOR SHARE`);
  await lockMove(tx, moveId);
  const [archive] = await tx.query<LeftArchive>(sql`${selectLeft(grace)} AND m.id = ${moveId}`);
  if (archive === undefined) return undefined;
  if (archive.isGone) {
    await noteInstants(tx, moveId, new Date(), "archive-removed");
    return "removed";
  }
  const { nodeId, tenantId, vmid, generation, revision, volumeId } = archive;
  if (nodeId === null) return undefined;
  const to = { nodeId, tenantId, podId, vmid, generation, revision, timeoutMs: deleteTimeoutMs };
  await insertCommand(tx, { ...to, op: { $case: "deleteBackup", value: { volumeId } } });
  return { askedAt: nodeId };
}
