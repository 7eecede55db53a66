import type { DrainPodState, DrainState } from "@cloudpods/shared/drain-lifecycle";
import { nextDrainState, type DrainEvent } from "@cloudpods/shared/drain-lifecycle";
import type { Blocker } from "../moves/plan-moves.ts";
import type { Database, Queryable, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { emailOf } from "../security/actor-email.ts";

/** A drain or an evacuation as its row has it. */
export interface Drain {
  readonly id: string;
  readonly nodeId: string;
  readonly node: string;
  readonly kind: "drain" | "evacuation";
  readonly state: DrainState;
  readonly reason: string;
  readonly requestedBy: string;
  readonly requestedByEmail: string | null;
  readonly requestId: string;
  readonly maxParallel: number;
  readonly deadlineAt: Date;
  readonly onNoCapacity: "fail" | "partial";
  readonly onDeadline: "leave" | "stop-and-restore";
  readonly onNoBackup: "keep" | "mark-lost";
  readonly returnHome: boolean;
  readonly cancelRequestedAt: Date | null;
  readonly outcome: string | null;
  readonly startedAt: Date;
  readonly finishedAt: Date | null;
  readonly returnedAt: Date | null;
  /** Counts everything that is done about the drain and its pods. */
  readonly version: number;
}

/** SELECT of drains `d` with the name of their host `n`; add WHERE and ORDER BY. */
export const selectDrains: Sql = sql`
  SELECT d.id, d.node_id AS "nodeId", n.name AS node, d.kind, d.state, d.reason, d.requested_by AS "requestedBy", ${emailOf(sql`d.requested_by`)} AS "requestedByEmail", d.request_id AS "requestId",
    d.max_parallel AS "maxParallel", d.deadline_at AS "deadlineAt", d.on_no_capacity AS "onNoCapacity", d.on_deadline AS "onDeadline",
    d.on_no_backup AS "onNoBackup", d.return_home AS "returnHome", d.cancel_requested_at AS "cancelRequestedAt", d.outcome,
    d.started_at AS "startedAt", d.finished_at AS "finishedAt", d.returned_at AS "returnedAt", d.version
  FROM node_drains d JOIN nodes n ON n.id = d.node_id`;

/**
 * Does something about a drain that was read, or about its pods, if nothing was done since. Others who do wait for the
 * end of the transaction and then find it changed, so of several drivers none acts on what is old.
 * @returns what was done and the version of the drain then; "changed": something else came first
 */
export async function doUnlessChanged<T>(
  db: Database,
  { id, version }: Pick<Drain, "id" | "version">,
  work: (tx: Transaction) => Promise<T>,
): Promise<{ readonly did: T; readonly version: number } | "changed"> {
  return await db.transaction(async (tx) => {
    const [held] = await tx.query<{ version: number }>(
      sql`UPDATE node_drains SET version = version + 1 WHERE id = ${id} AND version = ${version} RETURNING version`,
    );
    return held === undefined ? "changed" : { did: await work(tx), version: held.version };
  });
}

/** What changes about one pod of a drain; absent members stay. */
export interface DrainPodChange {
  readonly state: DrainPodState;
  readonly moveId?: string;
  readonly blocker?: Blocker | null;
  readonly expectedDowntimeMs?: number | null;
  readonly archiveMadeAt?: Date;
  /** A host on which the move has failed. */
  readonly failedTarget?: string;
  /** Once more it could not be brought home. */
  readonly returnFailed?: true;
}

/** Writes what has become of a pod. */
export async function changeDrainPod(
  tx: Queryable,
  drainId: string,
  podId: string,
  change: DrainPodChange,
): Promise<void> {
  const { state, moveId, blocker, expectedDowntimeMs, archiveMadeAt, failedTarget, returnFailed } = change;
  await tx.execute(sql`
    UPDATE node_drain_pods SET state = ${state}, move_id = coalesce(${moveId ?? null}, move_id), updated_at = now(),
      blocker_code = CASE WHEN ${blocker === undefined} THEN blocker_code ELSE ${blocker?.code ?? null} END,
      blocker_message = CASE WHEN ${blocker === undefined} THEN blocker_message ELSE ${blocker?.message ?? null} END,
      expected_downtime_ms = coalesce(${expectedDowntimeMs ?? null}::integer, expected_downtime_ms),
      return_tries = return_tries + ${returnFailed === true ? 1 : 0},
      archive_made_at = coalesce(${archiveMadeAt ?? null}::timestamptz, archive_made_at),
      failed_targets = CASE WHEN ${failedTarget === undefined} THEN failed_targets ELSE array_append(failed_targets, ${failedTarget ?? null}::uuid) END
    WHERE drain_id = ${drainId} AND pod_id = ${podId}`);
}

/** Moves a drain along its lifecycle; what the table ignores changes nothing. @returns its state then */
export async function advanceDrain(
  tx: Queryable,
  drain: Pick<Drain, "id" | "state">,
  event: DrainEvent,
  outcome: string,
): Promise<DrainState> {
  const next = nextDrainState(drain.state, event);
  if (next === undefined) return drain.state;
  const isOver = next !== "moving";
  await tx.execute(sql`
    UPDATE node_drains SET state = ${next}, outcome = ${isOver ? outcome : null}, finished_at = ${isOver ? sql`now()` : sql`NULL`}
    WHERE id = ${drain.id} AND state = ${drain.state}`);
  return next;
}
