import type { TaskType } from "@cloudpods/shared/task-types";
import { newId } from "@cloudpods/shared/ids";
import type { Database } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { createTask } from "../tasks/create-task.ts";
import { powerDeadlineMs } from "./change-power.saga.ts";
import { isFreeToRun, isKeptStopped } from "./holds.ts";
import { lockPodById } from "./pod.ts";

/** Pods that one pass takes up. */
const batchMax = 50;

/** Whether a task `t` of pod `p` is under way, or ended so lately that the host has said nothing since or shall have a rest. */
const isRecent: Sql = sql`(t.state NOT IN ('succeeded', 'failed', 'cancelled') OR t.finished_at > least(p.observed_at, now() - interval '5 minutes'))`;

/** Whether a task is one of ours that came to nothing. */
const isInVain: Sql = sql`(state = 'failed' AND requested_by = 'system:reconciler')`;

/**
 * Whether pod `p` rests after tries in vain, as many in a row as no other work came between: at first for five minutes,
 * then twice as long each time, at most six hours.
 */
const isResting: Sql = sql`EXISTS (
  SELECT FROM (SELECT count(*) AS tries, max(finished_at) AS last_at FROM cloud_pod_provisioning_tasks
    WHERE pod_id = p.id AND ${isInVain} AND id > coalesce((SELECT id FROM cloud_pod_provisioning_tasks
      WHERE pod_id = p.id AND NOT ${isInVain} ORDER BY id DESC LIMIT 1), '00000000-0000-0000-0000-000000000000')) vain
  WHERE vain.last_at > now() - least(interval '6 hours', interval '5 minutes' * 2 ^ least(vain.tries - 1, 10)))`;

/** Whether an operator wants the power of pod `p` as it is. No one but its authority ends a suspension. */
const isDismissed: Sql = sql`(p.status = 'active' AND EXISTS (SELECT FROM node_findings f
  WHERE f.pod_id = p.id AND f.node_id = p.node_id AND f.kind = 'power' AND f.subject = p.observed_power AND f.state = 'dismissed'))`;

/** Whether pod `p` may be worked on now. */
const isDue: Sql = sql`NOT EXISTS (SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = p.id AND ${isRecent})
  AND NOT ${isResting} AND NOT ${isDismissed}`;

/**
 * Queues work for pods whose host sees another power than is wanted: a container that did not come up after
 * a boot of its host, one that stopped behind our back, one whose suspension failed. Only what the host
 * has reported since the last work on the pod counts, a pod is taken up every five minutes at most and less and
 * less often while that is in vain, and what an operator has dismissed stays.
 * @returns how many were taken up
 */
export async function reconcilePower(db: Database): Promise<number> {
  const pods = await db.query<{ id: string }>(sql`
    SELECT p.id FROM cloud_pods p JOIN node_status s ON s.node_id = p.node_id
    WHERE p.status IN ('active', 'suspended') AND p.observed_power <> 'unknown' AND p.observed_power <> p.desired_power
      AND s.state IN ('online', 'degraded') AND s.session_connected
      AND NOT (p.desired_power = 'running' AND ${isKeptStopped})
      AND ${isDue}
    ORDER BY p.observed_at LIMIT ${batchMax}`);
  let queued = 0;
  for (const { id } of pods) if (await takeUp(db, id)) queued += 1;
  return queued;
}

async function takeUp(db: Database, podId: string): Promise<boolean> {
  return await db.transaction(async (tx) => {
    const pod = await lockPodById(tx, podId);
    const differs = pod.observedPower !== "unknown" && pod.observedPower !== pod.desiredPower;
    const due = await tx.query(sql`SELECT FROM cloud_pods p WHERE p.id = ${podId} AND ${isDue}`);
    if (!differs || due.length === 0 || (pod.status !== "active" && pod.status !== "suspended")) return false;
    if (pod.desiredPower === "running" && !(await isFreeToRun(tx, pod))) return false;
    const type: TaskType = pod.status === "suspended" ? "suspend" : pod.desiredPower === "running" ? "start" : "stop";
    const task = await createTask(tx, {
      tenantId: pod.tenantId,
      podId,
      type,
      step: type === "start" ? "start" : "stop",
      input: {},
      deadlineMs: powerDeadlineMs,
      requestedBy: "system:reconciler",
      requestId: newId(),
      message: `The host sees the pod ${pod.observedPower}, wanted is ${pod.desiredPower}`,
    });
    await tx.execute(sql`
      UPDATE node_findings SET action = 'repair', action_by = 'system:reconciler', acted_at = now(), attempts = attempts + 1, task_id = ${task.id}
      WHERE pod_id = ${podId} AND kind = 'power' AND state <> 'resolved'`);
    return true;
  });
}
