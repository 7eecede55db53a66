import type { Logger } from "pino";
import { seesBackup } from "../backups/backup-storage.ts";
import { giveUpCommand, waitsInVain } from "../nodes/give-up-command.ts";
import { insertCommand } from "../nodes/send-command.ts";
import type { Database, Transaction } from "../platform/database.ts";
import { eachByItself } from "../platform/each-by-itself.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { lockMove, noteInstants } from "./move.ts";
import { pauseAfter } from "./retry-pause.ts";

/** A move deletes its archive itself as long as it is under way; what it left is looked at this long after its end. */
const graceMs = 600_000;
/** With the pauses between them more than a day. */
const triesMax = 12;
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
  readonly tries: number;
  /** A host has said so, or none will ever see it again. */
  readonly isGone: boolean;
  /** That sees it and can be asked; null: none at present. */
  readonly nodeId: string | null;
}

/** What one pass did. */
export interface LeftArchivesPass {
  /** Hosts that were told to delete something. */
  readonly asked: readonly string[];
  readonly removed: number;
  /** Left to operators. */
  readonly givenUp: number;
}

/**
 * Deletes the archives of moves that are over and could not delete them themselves. One command at a time is open for an
 * archive, at any host that sees it; where it did not succeed last time comes last.
 */
export async function clearLeftArchives(
  { db, log }: { readonly db: Database; readonly log: Logger },
  grace = graceMs,
): Promise<LeftArchivesPass> {
  await noteLateArchives(db);
  await giveUpSilent(db);
  // In no fixed order: those that cannot be helped shall not keep others out.
  const left = await db.query<LeftArchive>(sql`${selectLeft(grace)} ORDER BY random() LIMIT ${batchMax}`);
  const message = "an archive that a move has left could not be looked after";
  const telling = { log, message, fields: ({ moveId }: LeftArchive) => ({ moveId }) };
  const asked: string[] = [];
  const count = { removed: 0, givenUp: 0 };
  await eachByItself(left, telling, async ({ moveId, podId }) => {
    const did = await db.transaction((tx) => clear(tx, moveId, podId, grace));
    if (typeof did === "object") asked.push(did.askedAt);
    else if (did !== undefined) count[did] += 1;
  });
  return { asked, ...count };
}

/** A host may tell of an archive that it made after the move was given up. */
async function noteLateArchives(db: Database): Promise<void> {
  await db.execute(sql`
    UPDATE cloud_pod_moves m SET archive_volume_id = c.backup->>'volumeId', archive_made_at = c.finished_at FROM node_commands c
    WHERE m.state = 'undone' AND m.archive_is_ours AND m.archive_volume_id IS NULL AND m.strategy = 'backup-restore' AND m.ended_at > now() - interval '2 days'
      AND c.pod_id = m.pod_id AND c.op = 'backup' AND c.command->'backup'->>'backupId' = m.id::text AND c.backup->>'found' = 'true'`);
}

async function giveUpSilent(db: Database): Promise<void> {
  const silent = await db.query<{ id: string }>(sql`
    SELECT c.id FROM cloud_pod_moves m JOIN node_commands c ON c.pod_id = m.pod_id AND c.op = 'delete_backup' AND c.task_id IS NULL
      AND c.command #>> '{deleteBackup,volumeId}' = m.archive_volume_id JOIN node_status s ON s.node_id = c.node_id
    WHERE m.archive_is_ours AND m.archive_volume_id IS NOT NULL AND m.archive_removed_at IS NULL AND m.archive_tries > 0 AND ${waitsInVain} LIMIT ${batchMax}`);
  for (const { id } of silent) await giveUpCommand(db, id);
}

/** Hosts that may have a storage by which the archive of a move `m` is seen, in rows `v` of node_storages. */
const seesArchive: Sql = sql`
  nodes n JOIN storages a ON a.name = m.archive_storage AND (a.node_id = n.id OR a.cluster_id = n.cluster_id)
  CROSS JOIN LATERAL (SELECT a.id AS storage_id) b JOIN node_storages v ON ${seesBackup} AND n.id IN (m.from_node_id, m.to_node_id)`;

/** Archives about which something can be done now: one is gone, a host can be asked, or it was tried too often. */
function selectLeft(grace: number): Sql {
  return sql`
    SELECT m.id AS "moveId", m.tenant_id AS "tenantId", m.pod_id AS "podId", p.vmid, p.revision, m.archive_volume_id AS "volumeId", m.archive_tries AS tries,
      -- A move that came to nothing has left its generation on the host: below that it refuses everything.
      1 + greatest(p.generation, (SELECT max(o.to_generation) FROM cloud_pod_moves o WHERE o.pod_id = p.id)) AS generation,
      past.is_gone OR seen.by_nobody AS "isGone", host.id AS "nodeId"
    FROM cloud_pod_moves m JOIN cloud_pods p ON p.id = m.pod_id
    CROSS JOIN LATERAL (
      -- Those of the move's own task too: its last one may still be under way.
      SELECT coalesce(bool_or(c.state = 'succeeded'), false) AS is_gone, coalesce(bool_or(c.finished_at IS NULL), false) AS is_open,
        max(c.finished_at) AS tried_at, (array_agg(c.node_id ORDER BY c.id DESC))[1] AS tried_by
      FROM node_commands c WHERE c.pod_id = m.pod_id AND c.op = 'delete_backup' AND c.command #>> '{deleteBackup,volumeId}' = m.archive_volume_id) past
    CROSS JOIN LATERAL (
      SELECT NOT EXISTS (SELECT FROM nodes l WHERE l.id IN (m.from_node_id, m.to_node_id) AND l.removed_at IS NULL)
        AND NOT EXISTS (SELECT FROM ${seesArchive} JOIN nodes l ON l.id = v.node_id AND l.removed_at IS NULL) AS by_nobody) seen
    LEFT JOIN LATERAL (
      SELECT v.node_id AS id FROM ${seesArchive} JOIN node_status s ON s.node_id = v.node_id
      WHERE v.available AND s.state IN ('online', 'degraded') AND s.session_connected AND 'delete_backup' = ANY(s.capabilities)
      ORDER BY v.node_id IS NOT DISTINCT FROM past.tried_by, v.node_id = m.to_node_id DESC, v.node_id LIMIT 1) host ON true
    WHERE m.state IN ('moved', 'undone', 'released') AND m.ended_at < now() - ${grace} * interval '1 ms'
      AND m.archive_is_ours AND m.archive_volume_id IS NOT NULL AND m.archive_removed_at IS NULL AND m.archive_given_up_at IS NULL
      -- Its source had given the container up and the target does not own it: the archive may be all that there is,
      -- until the pod was seen again where it is, or nobody wants it any more.
      AND (m.source_freed_at IS NULL OR m.switched_at IS NOT NULL OR p.status = 'deleted'
        OR (p.observed_power <> 'unknown' AND p.container_missing_since IS NULL AND p.observed_at > m.ended_at))
      -- What the pod's host has is out of reach, or the pod is just being brought back: then an archive is not of no more use.
      AND (p.status = 'deleted' OR (
        EXISTS (SELECT FROM node_status o WHERE o.node_id = p.node_id AND o.state IN ('online', 'degraded'))
        AND NOT EXISTS (SELECT FROM cloud_pod_moves o WHERE o.pod_id = p.id AND o.archive_volume_id = m.archive_volume_id AND o.id <> m.id
          AND (o.state = 'moving' OR (o.state = 'moved' AND o.error_code IS NOT NULL AND o.to_generation = p.generation)))))
      AND (past.is_gone OR seen.by_nobody OR (NOT past.is_open AND (host.id IS NOT NULL OR m.archive_tries >= ${triesMax}) AND (past.tried_at IS NULL
        OR past.tried_at < now() - ${pauseAfter(sql`m.archive_tries`)})))`;
}

/** @returns undefined when there is nothing to do any more */
async function clear(
  tx: Transaction,
  moveId: string,
  podId: string,
  grace: number,
): Promise<"removed" | "givenUp" | { readonly askedAt: string } | undefined> {
  // Pod before move, as everybody who needs both.
  await tx.query(sql`SELECT FROM cloud_pods WHERE id = ${podId} FOR SHARE`);
  await lockMove(tx, moveId);
  const [archive] = await tx.query<LeftArchive>(sql`${selectLeft(grace)} AND m.id = ${moveId}`);
  if (archive === undefined) return undefined;
  if (archive.isGone) {
    await noteInstants(tx, moveId, new Date(), "archive-removed");
    return "removed";
  }
  if (archive.tries >= triesMax) {
    await tx.execute(sql`UPDATE cloud_pod_moves SET archive_given_up_at = now() WHERE id = ${moveId}`);
    return "givenUp";
  }
  const { nodeId, tenantId, vmid, generation, revision, volumeId } = archive;
  if (nodeId === null) return undefined;
  const to = { nodeId, tenantId, podId, vmid, generation, revision, timeoutMs: deleteTimeoutMs };
  await insertCommand(tx, { ...to, op: { $case: "deleteBackup", value: { volumeId } } });
  await tx.execute(sql`UPDATE cloud_pod_moves SET archive_tries = archive_tries + 1 WHERE id = ${moveId}`);
  return { askedAt: nodeId };
}
