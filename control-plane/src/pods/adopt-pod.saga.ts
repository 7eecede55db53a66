import { Power } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { systemActor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { Saga, Step, StepContext } from "../tasks/saga.ts";
import { recordAddress } from "./addresses.ts";
import { recordAllocation } from "./allocations.ts";
import { changePodStatus } from "./change-status.ts";
import { failureOf, observationOf, sendWish } from "./command-steps.ts";
import { lockPodById, type Pod } from "./pod.ts";
import { createWish } from "./provision-pod.saga.ts";
import { beginRemoval, vacate } from "./release-pod.ts";

export const adoptDeadlineMs = 1_800_000;
const adoptTimeoutMs = 120_000;
/** What the operator saw is not promised for longer. */
const adoptTtlMs = 600_000;

/** The host marks the container if its configuration is still what the operator saw. */
export const adoptStep: Step = {
  name: "adopt",
  percent: 10,
  attemptsMax: 12,
  async begin({ tx, task }) {
    const pod = await lockPodById(tx, task.podId);
    const { configSha256, replacesPodId = "" } = task.input;
    const value = { expectedConfigSha256: String(configSha256), replacesPodId: String(replacesPodId) };
    const sent = await sendWish(tx, pod, task.id, {
      op: { $case: "adopt", value },
      timeoutMs: adoptTimeoutMs,
      ttlMs: adoptTtlMs,
    });
    return { kind: "wait", ...sent, message: "Marking the container" };
  },
  async resume({ tx, task }, command) {
    if (command.state !== "succeeded") return failureOf(command);
    const pod = await lockPodById(tx, task.podId);
    const seen = observationOf(command);
    if (seen !== undefined && seen.ip !== "") await recordAddress(tx, pod, seen.ip);
    if (seen !== undefined && seen.power !== Power.POWER_UNSPECIFIED) await keepPower(tx, pod, seen.power);
    return { kind: "done", message: "The container is marked as the pod's" };
  },
};

/**
 * It goes on as it was found: whoever started or stopped it since the inventory has not changed the configuration that the
 * operator saw, and we would turn that back.
 */
async function keepPower(tx: Transaction, { id }: Pod, seen: Power): Promise<void> {
  const power = seen === Power.POWER_RUNNING ? "running" : "stopped";
  await tx.execute(
    sql`UPDATE cloud_pods SET desired_power = ${power}, observed_power = ${power}, observed_at = now() WHERE id = ${id}`,
  );
}

/** Proves that what our books say describes the container; what cannot be made so stays, and is shown as a finding. */
const settleStep: Step = {
  name: "settle",
  percent: 60,
  attemptsMax: 3,
  async begin({ tx, task }) {
    const pod = await lockPodById(tx, task.podId);
    return {
      kind: "wait",
      ...(await sendWish(tx, pod, task.id, createWish(pod))),
      message: "Comparing it with our books",
    };
  },
  async resume(_, command) {
    const isSo = command.state === "succeeded";
    const message = isSo ? "It is as our books say" : `Left as it was found (${command.errorCode ?? command.state})`;
    return await Promise.resolve({ kind: "done", message });
  },
};

/** From here on the pod is the tenant's and is paid for. */
const activateStep: Step = {
  name: "activate",
  percent: 90,
  attemptsMax: 10,
  async begin({ tx, task, now }) {
    const pod = await lockPodById(tx, task.podId);
    await changePodStatus(tx, pod, "activated");
    await tx.execute(sql`UPDATE cloud_pods SET activated_at = ${now} WHERE id = ${pod.id}`);
    await recordAllocation(tx, pod, now);
    await tx.execute(
      sql`UPDATE subscriptions SET state = 'ACTIVE', activated_at = ${now} WHERE id = ${pod.subscriptionId}`,
    );
    await tx.execute(sql`DELETE FROM unmanaged_containers WHERE node_id = ${pod.nodeId} AND vmid = ${pod.vmid}`);
    return { kind: "done", message: "The container is the tenant's pod" };
  },
};

/**
 * The container is whose it was, and nothing on the host is asked. It may carry the mark by then, of a pod that it never
 * became: nobody removes it for that, and it can be adopted again.
 */
const releaseStep: Step = {
  name: "undo-release",
  percent: 0,
  attemptsMax: 10,
  async begin({ tx, task, now }) {
    await vacate(tx, await lockPodById(tx, task.podId), now);
    return { kind: "done", message: "The container stays whose it was; it can be adopted again" };
  },
};

/** Somebody's container becomes a pod as it is. */
export const adoptPodSaga: Saga = {
  type: "adopt",
  deadlineMs: adoptDeadlineMs,
  steps: [adoptStep, settleStep, activateStep],
  undo: [releaseStep],
  finish: finishAdoption,
};

async function finishAdoption(
  { tx, task, now }: StepContext,
  end: "succeeded" | "failed" | "cancelled",
): Promise<void> {
  const pod = await lockPodById(tx, task.podId);
  await recordAudit(tx, {
    actor: systemActor("adoption"),
    requestId: task.requestId ?? undefined,
    tenantId: pod.tenantId,
    action: end === "succeeded" ? "pod.activate" : "pod.adoption-failed",
    targetType: "pod",
    targetId: pod.id,
    detail: { askedBy: task.input["askedBy"], errorCode: task.errorCode },
  });
  if (end === "succeeded") return;
  await beginRemoval(tx, pod, now);
  await changePodStatus(tx, { ...pod, status: "deleting" }, "gone");
  await tx.execute(sql`
    UPDATE cloud_pods SET deleted_at = ${now}, last_error_code = ${task.errorCode}, last_error_message = ${task.errorMessage} WHERE id = ${pod.id}`);
  await tx.execute(
    sql`UPDATE subscriptions SET state = 'CANCELLED', ended_at = ${now} WHERE id = ${pod.subscriptionId}`,
  );
}
