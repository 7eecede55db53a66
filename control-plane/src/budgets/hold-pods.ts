import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import type { Database, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { powerDeadlineMs } from "../pods/change-power.saga.ts";
import { addHold, isFreeToRun, liftHold } from "../pods/holds.ts";
import type { PodHints } from "../pods/pod-hints.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { requestWork } from "../pods/request-work.ts";
import { systemActor } from "../security/actor.ts";
import type { Task } from "../tasks/task.ts";
import { stopOrder, type RankedPod } from "./stop-order.ts";

/** What stopping and giving back needs. */
export interface HoldDeps {
  readonly db: Database;
  readonly hints: PodHints;
}

/** A stop that failed on its host is asked for again after this. */
const stopAgainAfterMs = 300_000;

/**
 * Stops every pod of a tenant that runs, least important first. What the customer wants of the pod stays as it is:
 * the hold alone keeps it from running. One transaction a pod, so that a crash leaves each either held and being
 * stopped, or as it was; pods with other work under way come with the next pass.
 * @param yearMonth the month that is spent; nobody is stopped for it once it `isOver`
 * @returns how many pods are being stopped now
 */
export async function stopPodsOf(
  deps: HoldDeps,
  tenantId: string,
  yearMonth: string,
  isOver: () => boolean,
): Promise<number> {
  // A held pod that is seen running again: its stop failed on the host, or it was started behind our back.
  const pods = await deps.db.query<RankedPod>(sql`
    SELECT p.id, p.labels FROM cloud_pods p
    WHERE p.tenant_id = ${tenantId} AND p.status = 'active'
      AND NOT EXISTS (SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = p.id AND t.finished_at IS NULL)
      AND CASE WHEN EXISTS (
          SELECT FROM cloud_pod_holds h WHERE h.pod_id = p.id AND h.kind = 'budget' AND h.effect = 'stop' AND h.until IS NULL)
        THEN p.observed_power = 'running' AND NOT EXISTS (
          SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = p.id AND t.type = 'stop'
            AND t.finished_at > now() - ${stopAgainAfterMs} * interval '1 ms')
        ELSE p.desired_power = 'running' END`);
  return await inTurn(deps, stopOrder(pods), async (tx, pod) => (isOver() ? false : await holdPod(tx, pod, yearMonth)));
}

/**
 * Gives back exactly what the budget stopped, most important first: a pod whose customer meanwhile wants it stopped,
 * or that something else holds, loses only the hold.
 * @returns how many holds were lifted
 */
export async function giveBackPodsOf(deps: HoldDeps, tenantId: string): Promise<number> {
  const pods = await deps.db.query<RankedPod>(sql`
    SELECT p.id, p.labels FROM cloud_pods p JOIN cloud_pod_holds h ON h.pod_id = p.id
    WHERE h.tenant_id = ${tenantId} AND h.kind = 'budget' AND h.effect = 'stop' AND h.until IS NULL`);
  return await inTurn(deps, stopOrder(pods).toReversed(), givePodBack);
}

async function inTurn(
  { db, hints }: HoldDeps,
  pods: readonly RankedPod[],
  change: (tx: Transaction, pod: Pod) => Promise<Task | boolean>,
): Promise<number> {
  let changed = 0;
  for (const { id } of pods) {
    try {
      const done = await db.transaction(async (tx) => await change(tx, await lockPodById(tx, id)));
      if (done !== false) changed += 1;
      if (typeof done === "object") hints.workQueued(done.id, null);
    } catch (error) {
      // Work began in between: the next pass finds it finished.
      if (!(error instanceof DomainError && error.code === "POD_BUSY")) throw error;
    }
  }
  return changed;
}

async function holdPod(tx: Transaction, pod: Pod, yearMonth: string): Promise<Task | boolean> {
  // The budget may have been raised and judged anew since the list was made.
  const [still] = await tx.query(sql`
    SELECT FROM cloud_pod_budgets WHERE tenant_id = ${pod.tenantId} AND exhausted_month = ${yearMonth} FOR SHARE`);
  if (still === undefined || pod.status !== "active" || pod.desiredPower !== "running") return false;
  const isNew = await addHold(tx, pod, {
    kind: "budget",
    effect: "stop",
    actor: "system:budgets",
    reason: "the monthly budget is spent",
  });
  // Another replica held it first, and its stop is done.
  if (!isNew && pod.observedPower !== "running") return false;
  return await requestPower(tx, pod, "stop");
}

async function givePodBack(tx: Transaction, pod: Pod): Promise<Task | boolean> {
  // The other way round as in `holdPod`: a new month or limit may be spent again already.
  const spent = await tx.query(sql`
    SELECT FROM cloud_pod_budgets WHERE tenant_id = ${pod.tenantId} AND exhausted_month IS NOT NULL FOR SHARE`);
  if (spent.length > 0) return false;
  if ((await liftHold(tx, pod, "budget", "stop")) === undefined) return false;
  if (pod.status !== "active" || pod.desiredPower !== "running" || !(await isFreeToRun(tx, pod))) return true;
  return await requestPower(tx, pod, "start");
}

async function requestPower(tx: Transaction, pod: Pod, verb: "start" | "stop"): Promise<Task> {
  const who = { tenantId: pod.tenantId, actor: systemActor("budgets"), requestId: newId() };
  const message = verb === "stop" ? "The monthly budget is spent" : "There is budget again";
  return await requestWork(tx, who, pod, {
    type: verb,
    step: verb,
    deadlineMs: powerDeadlineMs,
    message,
    detail: { kind: "budget" },
  });
}
