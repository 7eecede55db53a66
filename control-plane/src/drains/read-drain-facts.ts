import type { DrainPodState } from "@cloudpods/shared/drain-lifecycle";
import type { MoveState } from "../moves/move.ts";
import { targetSteadiness } from "../moves/watch-target.ts";
import { isRecallable, isUntouched } from "../moves/untouched-move.ts";
import { wasHeardSinceGivenUp } from "../nodes/host-silence.ts";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { hopelessCodes } from "./choose-rescue.ts";
import type { DrainFacts, DrainPodFacts } from "./decide-drain.ts";
import type { Drain } from "./drain.ts";

interface PodRow {
  readonly podId: string;
  readonly state: DrainPodState;
  readonly isBusy: boolean;
  readonly isGone: boolean;
  readonly move: MoveState | null;
  readonly hasMoveFailed: boolean;
  readonly target: DrainPodFacts["target"];
  readonly canRestore: boolean;
  readonly isWaiting: boolean;
  readonly canBeRecalled: boolean;
  readonly wasAborted: boolean;
  readonly failedTargets: number;
  readonly reason: string | null;
  readonly canWait: boolean | null;
  readonly isDue: boolean;
  readonly isHopeless: boolean;
}

/** After so long a place is looked for again that was not there. */
const lookAgainSeconds = 60;

/** Whether what a pod `d` of a drain is blocked by may pass, by its last move `m`: it had a place before, or its host is gone. Null: nothing is in its way. */
function mayPass({ kind }: Pick<Drain, "kind">): Sql {
  return sql`(d.blocker_code IN ('NO_CAPACITY', 'NO_HOST') AND (m.id IS NOT NULL OR ${kind === "evacuation"}))`;
}

/** The pods of a drain for which a place is looked for again. */
export async function countWaiting(tx: Queryable, drain: Pick<Drain, "id" | "kind">): Promise<number> {
  const [waiting] = await tx.query<{ pods: number }>(sql`
    SELECT count(*)::integer AS pods FROM node_drain_pods d LEFT JOIN cloud_pod_moves m ON m.id = d.move_id
    WHERE d.drain_id = ${drain.id} AND d.state = 'blocked' AND ${mayPass(drain)}`);
  return waiting?.pods ?? 0;
}

/** Takes pods of the host into its drain that are not in it yet, e.g. orders that the cordon came too late for. */
export async function enlistPods(tx: Queryable, drain: Pick<Drain, "id" | "nodeId">): Promise<void> {
  await tx.execute(sql`
    INSERT INTO node_drain_pods (drain_id, tenant_id, pod_id)
    SELECT ${drain.id}, p.tenant_id, p.id FROM cloud_pods p WHERE p.node_id = ${drain.nodeId} AND p.status <> 'deleted'
    ON CONFLICT (drain_id, pod_id) DO NOTHING`);
}

/** The pods that have left a host and whose room there is not free yet: a copy of them may be on it. */
export async function readHeldRooms(tx: Queryable, nodeId: string): Promise<{ name: string; vmid: number }[]> {
  return await tx.query<{ name: string; vmid: number }>(sql`
    SELECT p.name, p.vmid FROM node_claims k JOIN cloud_pods p ON p.id = k.pod_id
    WHERE k.node_id = ${nodeId} AND p.node_id IS DISTINCT FROM k.node_id ORDER BY p.vmid`);
}

/** Everything that the next decision about a drain rests on, in one statement each, with pods that have come to the host. */
export async function readDrainFacts(tx: Queryable, drain: Drain): Promise<DrainFacts> {
  // In this order: a pod that comes to the host meanwhile is among the pods at the latest when its claim is none of another.
  const held = await readHeldRooms(tx, drain.nodeId);
  await enlistPods(tx, drain);
  const pods = await tx.query<PodRow>(sql`
    SELECT d.pod_id AS "podId", d.state, d.blocker_code AS reason, ${mayPass(drain)} AS "canWait",
      d.state = 'blocked' AND coalesce(d.blocker_code = ANY(${[...hopelessCodes]}), false) AS "isHopeless",
      d.updated_at <= now() - ${lookAgainSeconds} * interval '1 s' AS "isDue", cardinality(d.failed_targets) AS "failedTargets", m.state AS move, m.error_code IS NOT NULL AS "hasMoveFailed",
      p.status IN ('provisioning', 'deleting') OR EXISTS (
        SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = p.id AND t.state NOT IN ('succeeded', 'failed', 'cancelled')) AS "isBusy",
      p.status = 'deleted' OR p.node_id IS DISTINCT FROM ${drain.nodeId} AS "isGone",
      CASE WHEN n.schedulable AND n.removed_at IS NULL AND s.quorate IS NOT FALSE THEN ${targetSteadiness} ELSE 'bad' END AS target,
      m.archive_storage IS NOT NULL OR EXISTS (
        SELECT FROM node_claims k WHERE k.pod_id = m.pod_id AND k.generation = m.to_generation AND k.disk_gb = 0) AS "canRestore", coalesce(m.state = 'undone' AND m.error_code = 'CANCELLED', false) AS "wasAborted",
      EXISTS (SELECT FROM cloud_pod_provisioning_tasks t WHERE t.id = m.task_id AND ${isUntouched}) AS "isWaiting",
      EXISTS (SELECT FROM cloud_pod_provisioning_tasks t WHERE t.id = m.task_id AND ${isRecallable}) AS "canBeRecalled"
    FROM node_drain_pods d JOIN cloud_pods p ON p.id = d.pod_id LEFT JOIN cloud_pod_moves m ON m.id = d.move_id
      LEFT JOIN nodes n ON n.id = m.to_node_id LEFT JOIN node_status s ON s.node_id = n.id
    WHERE d.drain_id = ${drain.id} ORDER BY p.memory_mb DESC, p.disk_gb DESC, p.id`);
  const { kind, onNoCapacity, onDeadline, onNoBackup, maxParallel, deadlineAt, cancelRequestedAt } = drain;
  return {
    kind,
    state: drain.state === "planning" ? "planning" : "moving",
    onNoCapacity,
    onDeadline,
    onNoBackup,
    maxParallel,
    deadlineMs: deadlineAt.getTime(),
    isCancelled: cancelRequestedAt !== null,
    isHostBack: await isHostBack(tx, drain),
    claimsLeft: held.length,
    pods: pods.map(({ move, reason, canWait, ...pod }): DrainPodFacts => ({
      ...pod,
      move: move ?? undefined,
      reason: reason ?? undefined,
      // Nothing is compared with no reason.
      canWait: canWait === true,
    })),
  };
}

/** Whether anything was heard of an evacuated host since it was given up. Holds what it says until the transaction ends. */
export async function isHostBack(tx: Queryable, { id }: Pick<Drain, "id">): Promise<boolean> {
  const [status] = await tx.query<{ isBack: boolean }>(sql`
    SELECT ${wasHeardSinceGivenUp} AS "isBack" FROM node_status s JOIN node_drains d ON d.node_id = s.node_id
    WHERE d.id = ${id} AND d.kind = 'evacuation' FOR SHARE OF s`);
  return status?.isBack === true;
}
