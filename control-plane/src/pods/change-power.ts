import type { Queryable, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { reserveQuota } from "../quotas/reserve-quota.ts";
import type { Task } from "../tasks/task.ts";
import { powerDeadlineMs } from "./change-power.saga.ts";
import { changePodStatus, requireActive } from "./change-status.ts";
import { addHold, liftSuspendHold, requireStartable } from "./holds.ts";
import type { HoldKind } from "./open-holds.ts";
import { lockPod, type Pod } from "./pod.ts";
import { freeQuota, quotaOf } from "./release-pod.ts";
import { lockAskedPod, requestWork, type Requester } from "./request-work.ts";

/** What a request for work gives back. */
export interface Accepted {
  readonly pod: Pod;
  readonly task: Task;
}

/**
 * Start, stop or restart; the lifecycle status stays active.
 * @throws DomainError `POD_WRONG_STATE`, `POD_ON_HOLD`, `BUDGET_EXHAUSTED`, `POD_BUSY`, `VERSION_MISMATCH`
 */
export async function changePower(
  tx: Transaction,
  who: Requester,
  reference: string,
  verb: "start" | "stop" | "restart",
): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  requireActive(pod);
  if (verb !== "stop") await requireStartable(tx, pod);
  await wantPower(tx, pod, verb === "stop" ? "stopped" : "running");
  const task = await requestWork(tx, who, pod, {
    type: verb,
    step: verb === "restart" ? "reboot" : verb,
    deadlineMs: powerDeadlineMs,
    message: "Accepted",
  });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task };
}

/**
 * Suspends: the container is stopped and the quota is free again.
 * @throws DomainError `POD_WRONG_STATE`, `POD_BUSY`, `VERSION_MISMATCH`
 */
export async function suspendPod(
  tx: Transaction,
  who: Requester,
  reference: string,
  kind: HoldKind,
  reason: string | undefined,
): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  await freeQuota(tx, pod);
  await changePodStatus(tx, pod, "suspended");
  await addHold(tx, pod, { kind, effect: "suspend", actor: `${who.actor.kind}:${who.actor.id}`, reason });
  await wantPower(tx, pod, "stopped");
  const task = await requestWork(tx, who, pod, {
    type: "suspend",
    step: "stop",
    deadlineMs: powerDeadlineMs,
    message: "Accepted",
    detail: { kind, reason: reason ?? null },
  });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task };
}

/**
 * Resumes: the quota is checked again, since suspended pods do not count.
 * @throws DomainError `POD_WRONG_STATE`, `POD_ON_HOLD`, `BUDGET_EXHAUSTED`, `QUOTA_EXCEEDED`, `POD_BUSY`, `VERSION_MISMATCH`
 */
export async function resumePod(tx: Transaction, who: Requester, reference: string, kind: HoldKind): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  await changePodStatus(tx, pod, "resumed");
  await liftSuspendHold(tx, pod, kind);
  await requireStartable(tx, pod);
  await reserveQuota(tx, pod.tenantId, quotaOf(pod));
  await wantPower(tx, pod, "running");
  const task = await requestWork(tx, who, pod, {
    type: "resume",
    step: "start",
    deadlineMs: powerDeadlineMs,
    message: "Accepted",
    detail: { kind },
  });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task };
}

/** Writes which power is wanted; who carries it out is a task or the loop that compares. */
export async function wantPower(tx: Queryable, pod: Pod, power: "running" | "stopped"): Promise<void> {
  await tx.execute(
    sql`UPDATE cloud_pods SET desired_power = ${power}, version = version + 1, updated_at = now() WHERE id = ${pod.id}`,
  );
}
