import { newId } from "@cloudpods/shared/ids";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { setRateDeadlineMs } from "../pods/set-rate.saga.ts";
import { addHold, liftHold } from "../pods/holds.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { requestWork } from "../pods/request-work.ts";
import { systemActor } from "../security/actor.ts";
import type { Task } from "../tasks/task.ts";
import { throttledRateKib } from "./decide-bandwidth.ts";

/** What was changed. */
export interface ThrottleChange {
  readonly kind: "throttled" | "freed" | "asked-again";
  readonly task: Task;
}

/** A change that failed on its host is asked for again after this. */
const againAfterMs = 300_000;

/**
 * Slows a pod's network or gives it back its rate, exactly as it was: the hold keeps the rate from before. One
 * transaction with the work for the host. A pod that is not active sends nothing, and is looked at when it is again.
 * @returns undefined when there is nothing to do
 * @throws DomainError `POD_BUSY`
 */
export async function setThrottle(tx: Transaction, pod: Pod, throttle: boolean): Promise<ThrottleChange | undefined> {
  if (pod.status !== "active") return undefined;
  const kind = throttle ? await slow(tx, pod) : await free(tx, pod);
  if (kind === undefined && !(await hasFailedOnHost(tx, pod))) return undefined;
  return { kind: kind ?? "asked-again", task: await tellHost(tx, await lockPodById(tx, pod.id), throttle) };
}

async function slow(tx: Transaction, pod: Pod): Promise<"throttled" | undefined> {
  const isNew = await addHold(tx, pod, {
    kind: "bandwidth",
    effect: "throttle",
    actor: "system:bandwidth",
    reason: "the traffic of the month is used",
    previousRateLimitKibPerSecond: pod.rateLimitKibPerSecond,
  });
  if (!isNew) return undefined;
  await setRate(tx, pod, throttledRateKib(pod.rateLimitKibPerSecond));
  return "throttled";
}

async function free(tx: Transaction, pod: Pod): Promise<"freed" | undefined> {
  const lifted = await liftHold(tx, pod, "bandwidth", "throttle");
  if (lifted === undefined) return undefined;
  const before = lifted.previousRateLimitKibPerSecond ?? 0;
  // Whoever set another rate meanwhile meant it to stay.
  if (pod.rateLimitKibPerSecond === throttledRateKib(before)) await setRate(tx, pod, before);
  return "freed";
}

async function setRate(tx: Transaction, pod: Pod, rateKib: number): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pods SET rate_limit_kib_per_second = ${rateKib}, version = version + 1, updated_at = now() WHERE id = ${pod.id}`);
}

async function hasFailedOnHost(tx: Transaction, pod: Pod): Promise<boolean> {
  const [last] = await tx.query<{ again: boolean }>(sql`
    SELECT state = 'failed' AND finished_at < now() - ${againAfterMs} * interval '1 ms' AS again
    FROM cloud_pod_provisioning_tasks WHERE pod_id = ${pod.id} AND type = 'set-rate' ORDER BY id DESC LIMIT 1`);
  return last?.again === true;
}

async function tellHost(tx: Transaction, pod: Pod, throttle: boolean): Promise<Task> {
  const who = { tenantId: pod.tenantId, actor: systemActor("bandwidth"), requestId: newId() };
  return await requestWork(tx, who, pod, {
    type: "set-rate",
    step: "set-rate",
    deadlineMs: setRateDeadlineMs,
    message: throttle ? "The traffic of the month is used" : "There is traffic again",
    detail: { rateLimitKibPerSecond: pod.rateLimitKibPerSecond },
  });
}
