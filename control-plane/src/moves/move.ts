import type { Queryable } from "../platform/database.ts";
import { joinSql, sql, type Sql } from "../platform/sql.ts";

/**
 * How a pod gets to its target.
 * - `cluster-migrate`: Proxmox moves it inside its cluster.
 * - `backup-restore`: by an archive on a storage that both hosts see.
 * - `take-over`: the configuration of a dead member of the cluster is taken over, with its disk where that is shared.
 * - `restore-newest`: from the newest backup of a host that is gone.
 */
export type MoveStrategy = "cluster-migrate" | "backup-restore" | "take-over" | "restore-newest";

/** Why a pod moves. `return`: home, after its host was emptied and opened again. */
export type MovePurpose = "migrate" | "drain" | "return" | "evacuate";

/**
 * ```
 * reserved → moving → moved | undone        reserved → released
 * ```
 */
export type MoveState = "reserved" | "moving" | "moved" | "undone" | "released";

/** A move as its row has it, with what the commands must know of both hosts. */
export interface Move {
  readonly id: string;
  readonly tenantId: string;
  readonly podId: string;
  readonly purpose: MovePurpose;
  readonly strategy: MoveStrategy;
  readonly state: MoveState;
  readonly fromNodeId: string;
  readonly fromNode: string;
  /** Name inside Proxmox. */
  readonly fromPveName: string;
  readonly toNodeId: string;
  readonly toNode: string;
  readonly toPveName: string;
  /** Both are members of one Proxmox cluster, so they share its ids. */
  readonly isInCluster: boolean;
  readonly fromGeneration: bigint;
  readonly toGeneration: bigint;
  readonly storage: string;
  readonly bridge: string;
  readonly pool: string | null;
  readonly verdict: unknown;
  readonly archiveStorage: string | null;
  readonly archiveVolumeId: string | null;
  readonly archiveMadeAt: Date | null;
  readonly archiveIsOurs: boolean;
  readonly diskGb: number;
  readonly runs: boolean;
  readonly taskId: string | null;
  readonly begunAt: Date | null;
  /** Something for the move was sent to the source; else nothing can be different there. */
  readonly sourceWasTold: boolean;
  readonly stoppedAt: Date | null;
  readonly sourceFreedAt: Date | null;
  readonly restoreAskedAt: Date | null;
  readonly startAskedAt: Date | null;
  readonly targetClearedAt: Date | null;
  readonly foundOnTarget: boolean;
  readonly switchedAt: Date | null;
  readonly runningAt: Date | null;
  readonly sourceRemovedAt: Date | null;
  readonly downtimeMs: number | null;
}

const selectMoves: Sql = sql`
  SELECT m.id, m.tenant_id AS "tenantId", m.pod_id AS "podId", m.purpose, m.strategy, m.state,
    m.from_node_id AS "fromNodeId", f.name AS "fromNode", coalesce(f.pve_name, f.name) AS "fromPveName",
    m.to_node_id AS "toNodeId", t.name AS "toNode", coalesce(t.pve_name, t.name) AS "toPveName",
    coalesce(f.cluster_id = t.cluster_id, false) AS "isInCluster",
    m.from_generation AS "fromGeneration", m.to_generation AS "toGeneration", m.storage, m.bridge, m.pool, m.verdict,
    m.archive_storage AS "archiveStorage", m.archive_volume_id AS "archiveVolumeId", m.archive_made_at AS "archiveMadeAt",
    m.archive_is_ours AS "archiveIsOurs", m.disk_gb AS "diskGb", m.runs, m.task_id AS "taskId", m.begun_at AS "begunAt",
    EXISTS (SELECT FROM node_commands c WHERE c.pod_id = m.pod_id AND c.task_id = m.task_id AND c.node_id = m.from_node_id
      AND (c.sent_at IS NOT NULL OR c.state NOT IN ('pending', 'cancelled', 'superseded'))) AS "sourceWasTold",
    m.stopped_at AS "stoppedAt", m.source_freed_at AS "sourceFreedAt", m.restore_asked_at AS "restoreAskedAt",
    m.start_asked_at AS "startAskedAt", m.target_cleared_at AS "targetClearedAt", m.found_on_target AS "foundOnTarget",
    m.switched_at AS "switchedAt", m.running_at AS "runningAt", m.source_removed_at AS "sourceRemovedAt", m.downtime_ms AS "downtimeMs"
  FROM cloud_pod_moves m JOIN nodes f ON f.id = m.from_node_id JOIN nodes t ON t.id = m.to_node_id`;

/** A move with its row locked. Lock its pod before. */
export async function lockMove(tx: Queryable, id: string): Promise<Move> {
  const [move] = await tx.query<Move>(sql`${selectMoves} WHERE m.id = ${id} FOR NO KEY UPDATE OF m`);
  if (move === undefined) throw new Error(`there is no move ${id}`);
  return move;
}

/** The move of a pod that is not over, locked. */
export async function lockOpenMove(tx: Queryable, podId: string): Promise<Move | undefined> {
  const [move] = await tx.query<Move>(sql`
    ${selectMoves} WHERE m.pod_id = ${podId} AND m.state IN ('reserved', 'moving') FOR NO KEY UPDATE OF m`);
  return move;
}

const instants = {
  begun: sql`begun_at`,
  stopped: sql`stopped_at`,
  "source-freed": sql`source_freed_at`,
  "restore-asked": sql`restore_asked_at`,
  "start-asked": sql`start_asked_at`,
  "target-cleared": sql`target_cleared_at`,
  switched: sql`switched_at`,
  running: sql`running_at`,
  "source-removed": sql`source_removed_at`,
  "archive-removed": sql`archive_removed_at`,
} as const;

/** Notes when something of a move happened first; a repetition changes nothing. */
export async function noteInstants(
  tx: Queryable,
  moveId: string,
  at: Date,
  ...names: readonly (keyof typeof instants)[]
): Promise<void> {
  const changes = names.map((name) => sql`${instants[name]} = coalesce(${instants[name]}, ${at})`);
  await tx.execute(sql`UPDATE cloud_pod_moves SET ${joinSql(changes, sql`, `)} WHERE id = ${moveId}`);
}

/** Ends a move that is under way; one that has ended stays as it is. */
export async function endMove(
  tx: Queryable,
  moveId: string,
  state: Exclude<MoveState, "reserved" | "moving">,
  error?: { readonly code: string | null; readonly message: string | null },
): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pod_moves SET state = ${state}, ended_at = now(), error_code = ${error?.code ?? null}, error_message = ${error?.message ?? null}
    WHERE id = ${moveId} AND state IN ('reserved', 'moving')`);
}
