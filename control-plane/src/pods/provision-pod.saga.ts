import { archiveTimeoutMs } from "../backups/archive-steps.ts";
import { backupPolicyStep } from "../backups/backup-policy-step.ts";
import { restoreWish } from "../backups/restore-wish.ts";
import { insertCommand } from "../nodes/send-command.ts";
import { sql } from "../platform/sql.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { recordAudit } from "../security/audit.ts";
import { systemActor } from "../security/actor.ts";
import type { Saga, Step, StepContext, StepOutcome } from "../tasks/saga.ts";
import { recordAddress } from "./addresses.ts";
import { recordAllocation } from "./allocations.ts";
import { changePodStatus } from "./change-status.ts";
import { commandStep, observationOf, sendWish, type Wish } from "./command-steps.ts";
import { containerSpecOf, differences } from "./container-spec.ts";
import { lockPodById, type Pod } from "./pod.ts";
import { startStep } from "./power-steps.ts";
import { freeQuota, vacate } from "./release-pod.ts";
import { removeContainerStep } from "./remove-container-step.ts";
import { reservePlace } from "./reserve-place.ts";

/** A full clone of a large template over a slow disk takes minutes. */
const createTimeoutMs = 900_000;
const addressTimeoutMs = 60_000;
/** From the order to a running pod, waiting for a host that restarts included. */
const provisionDeadlineMs = 1_800_000;

/** How long an order may take; an archive of hundreds of GB is unpacked for hours. */
export function orderDeadlineMs(isFromArchive: boolean): number {
  return provisionDeadlineMs + (isFromArchive ? archiveTimeoutMs : 0);
}

/** The wish that an order sends at once and that a lost or failed command is sent again as. */
export function createWish(pod: Pod): Wish {
  return { op: { $case: "ensureContainer", value: { spec: containerSpecOf(pod) } }, timeoutMs: createTimeoutMs };
}

/** As `createWish`, for the first time: from the backup that the order named, else from a template. */
export function orderWish(pod: Pod): Wish {
  return pod.sourceVolumeId === null ? createWish(pod) : restoreWish(pod, pod.sourceVolumeId);
}

/** An order does this in its own transaction; only a retried task comes through here. */
function reserveStep(fleet: FleetView): Step {
  return {
    name: "reserve",
    percent: 0,
    attemptsMax: 5,
    async begin({ tx, task }): Promise<StepOutcome> {
      const pod = await lockPodById(tx, task.podId);
      if (pod.nodeId !== null) return { kind: "done", message: "Has its place" };
      await reservePlace(tx, fleet, pod);
      return { kind: "done", message: "Has a place on a host" };
    },
  };
}

/** How far an order is when its first step begins, and when the second does. */
export const createSpan = { from: 10, to: 45 } as const;

const createStep: Step = commandStep({
  name: "create",
  percent: createSpan.from,
  waitingFor: "Creating the container",
  wish: orderWish,
  onSuccess: async () => await Promise.resolve({ kind: "done", message: "The container exists" }),
});

/** Programs of the host report success for a resize that failed: what counts is what the agent saw afterwards. */
const configureStep: Step = {
  name: "configure",
  percent: createSpan.to,
  attemptsMax: 4,
  async begin(context) {
    const pod = await lockPodById(context.tx, context.task.podId);
    return await compare(context, pod, await latestObservation(context, pod));
  },
  async resume(context, command) {
    const pod = await lockPodById(context.tx, context.task.podId);
    if (command.state === "succeeded") {
      const wrong = missing(pod, observationOf(command));
      if (wrong.length === 0) return { kind: "done", message: "The container is as ordered" };
      return { kind: "retry", code: "CONFIGURATION_DIFFERS", message: `The host made ${wrong.join(", ")}` };
    }
    return {
      kind: "retry",
      code: command.errorCode ?? "CONFIGURE_FAILED",
      message: command.errorMessage ?? command.state,
    };
  },
};

async function compare(
  { tx, task }: StepContext,
  pod: Pod,
  seen: ReturnType<typeof observationOf>,
): Promise<StepOutcome> {
  if (missing(pod, seen).length === 0) return { kind: "done", message: "The container is as ordered" };
  return { kind: "wait", ...(await sendWish(tx, pod, task.id, orderWish(pod))), message: "Correcting the container" };
}

function missing(pod: Pod, seen: ReturnType<typeof observationOf>): string[] {
  return seen === undefined ? ["nothing that it reports"] : differences(pod, seen);
}

async function latestObservation({ tx }: StepContext, pod: Pod): Promise<ReturnType<typeof observationOf>> {
  const [row] = await tx.query<{ observation: unknown }>(sql`
    SELECT observation FROM node_commands
    WHERE pod_id = ${pod.id} AND generation = ${pod.generation} AND op IN ('ensure_container', 'restore') AND state = 'succeeded'
    ORDER BY id DESC LIMIT 1`);
  return row === undefined ? undefined : observationOf(row);
}

const waitForAddressStep: Step = {
  name: "wait-for-address",
  percent: 75,
  attemptsMax: 5,
  async begin({ tx, task }) {
    const pod = await lockPodById(tx, task.podId);
    if (pod.nodeId === null) return { kind: "fail", code: "POD_WITHOUT_PLACE", message: "The pod lost its place" };
    const commandId = await insertCommand(tx, {
      nodeId: pod.nodeId,
      tenantId: pod.tenantId,
      podId: pod.id,
      vmid: pod.vmid,
      taskId: task.id,
      generation: pod.generation,
      revision: pod.revision,
      timeoutMs: addressTimeoutMs * 2,
      op: { $case: "inspect", value: { awaitAddressMs: addressTimeoutMs, beforeRestore: undefined } },
    });
    return { kind: "wait", commandId, nodeId: pod.nodeId, message: "Waiting for an address" };
  },
  async resume({ tx, task }, command) {
    const pod = await lockPodById(tx, task.podId);
    const ip = observationOf(command)?.ip ?? "";
    if (ip === "") {
      const message = command.errorMessage ?? "The container has no address yet";
      return { kind: "retry", code: command.errorCode ?? "NO_ADDRESS", message };
    }
    await recordAddress(tx, pod, ip);
    return { kind: "done", message: `Has the address ${ip}` };
  },
};

/** From here on the pod is the customer's and is paid for. */
const activateStep: Step = {
  name: "activate",
  percent: 95,
  attemptsMax: 5,
  async begin({ tx, task, now }) {
    const pod = await lockPodById(tx, task.podId);
    await changePodStatus(tx, pod, "activated");
    await tx.execute(sql`
      UPDATE cloud_pods SET activated_at = coalesce(activated_at, ${now}), last_error_code = NULL, last_error_message = NULL WHERE id = ${pod.id}`);
    await recordAllocation(tx, pod, now);
    await tx.execute(sql`
      UPDATE subscriptions SET state = 'ACTIVE', activated_at = coalesce(activated_at, ${now})
      WHERE id = ${pod.subscriptionId} AND state = 'PENDING_ACTIVATION'`);
    await audit(tx, pod, "pod.activate", task.requestId);
    return { kind: "done", message: "The pod is active" };
  },
};

const releaseStep: Step = {
  name: "undo-release",
  percent: 0,
  attemptsMax: 10,
  async begin({ tx, task, now }) {
    await vacate(tx, await lockPodById(tx, task.podId), now);
    return { kind: "done", message: "The place on the host is free again" };
  },
};

/** Order to running pod. */
export function provisionPod(fleet: FleetView): Saga {
  return {
    type: "create",
    deadlineMs: provisionDeadlineMs,
    steps: [
      reserveStep(fleet),
      createStep,
      configureStep,
      startStep(60),
      waitForAddressStep,
      backupPolicyStep,
      activateStep,
    ],
    undo: [removeContainerStep("undo-create"), releaseStep],
    finish: finishOrder,
  };
}

async function finishOrder({ tx, task, now }: StepContext, end: "succeeded" | "failed" | "cancelled"): Promise<void> {
  if (end === "succeeded") return;
  const pod = await lockPodById(tx, task.podId);
  await freeQuota(tx, pod);
  if (end === "cancelled") {
    await changePodStatus(tx, pod, "delete-asked");
    await changePodStatus(tx, { ...pod, status: "deleting" }, "gone");
    await tx.execute(
      sql`UPDATE cloud_pods SET deletion_requested_at = ${now}, deleted_at = ${now} WHERE id = ${pod.id}`,
    );
    await tx.execute(
      sql`UPDATE subscriptions SET state = 'CANCELLED', ended_at = ${now} WHERE id = ${pod.subscriptionId}`,
    );
  } else {
    await changePodStatus(tx, pod, "provisioning-failed");
    await tx.execute(sql`
        UPDATE cloud_pods SET last_error_code = ${task.errorCode}, last_error_message = ${task.errorMessage} WHERE id = ${pod.id}`);
  }
  await audit(tx, pod, end === "cancelled" ? "pod.order-cancelled" : "pod.provisioning-failed", task.requestId);
}

async function audit(tx: StepContext["tx"], pod: Pod, action: string, requestId: string | null): Promise<void> {
  await recordAudit(tx, {
    actor: systemActor("provisioning"),
    requestId: requestId ?? undefined,
    tenantId: pod.tenantId,
    action,
    targetType: "pod",
    targetId: pod.id,
  });
}
