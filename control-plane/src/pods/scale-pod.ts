import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable, Transaction } from "../platform/database.ts";
import { resolvePlan } from "../plans/resolve-plan.ts";
import type { Accepted } from "./change-power.ts";
import { resizeDeadlineMs, sizeOf, wantSize, type PodSize } from "./change-size.saga.ts";
import { requireActive } from "./change-status.ts";
import { lockPod, type Pod } from "./pod.ts";
import { requirePlanAllowed } from "./plan-limits.ts";
import { lockAskedPod, requestWork, type Requester } from "./request-work.ts";
import { requirePriced } from "./require-priced.ts";

/** What a pod shall become: a plan, or resources of which those left out stay. */
export interface ScaleOrder {
  readonly planCode?: string | undefined;
  readonly resources?:
    | {
        readonly cores?: number | undefined;
        readonly memoryMb?: number | undefined;
        readonly diskGb?: number | undefined;
      }
    | undefined;
}

/**
 * Changes the plan or the resources of a pod. Quota and the host's capacity are checked on what increases.
 * @throws DomainError `PLAN_NOT_FOUND`, `DISK_SHRINK_UNSUPPORTED`, `SCALE_WITHOUT_CHANGE`, `EMAIL_NOT_VERIFIED`,
 *   `PLAN_LIMIT_REACHED`, `NOT_PRICED`, `QUOTA_EXCEEDED`, `NO_CAPACITY`,
 *   `POD_WRONG_STATE`, `CONTAINER_MISSING`, `POD_BUSY`, `VERSION_MISMATCH`
 */
export async function scalePod(
  tx: Transaction,
  who: Requester & { readonly isEmailVerified: () => Promise<boolean> },
  reference: string,
  order: ScaleOrder,
): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  const { size } = await checkScale(tx, who, pod, order, (wanted) => wantSize(tx, pod, wanted));
  const task = await requestWork(tx, who, pod, {
    type: "resize",
    step: "resize",
    deadlineMs: resizeDeadlineMs,
    input: { from: sizeOf(pod), to: size },
    message: "Accepted",
    detail: { from: sizeOf(pod), to: size },
  });
  return { pod: await lockPod(tx, who.tenantId, pod.id), task };
}

/**
 * Everything that is asked of a scale, for the scale itself and for its dry run alike. `take` claims quota and
 * capacity or only compares; what must not be true of two at once is asked after it, under its lock.
 * @throws DomainError as `scalePod`, and what `take` throws
 */
export async function checkScale<Taken>(
  tx: Queryable,
  who: { readonly tenantId: string; readonly isEmailVerified: () => Promise<boolean> },
  pod: Pod,
  order: ScaleOrder,
  take: (size: PodSize) => Promise<Taken>,
): Promise<{ readonly size: PodSize; readonly taken: Taken }> {
  const size = await scaledSize(tx, pod, order);
  const taken = await take(size);
  if (size.planCode !== pod.planCode) {
    const plan = size.planCode === null ? undefined : await resolvePlan(tx, size.planCode);
    await requirePriced(tx, who.tenantId, plan);
    if (plan !== undefined) await requirePlanAllowed(tx, who, plan, pod.id);
  }
  return { size, taken };
}

async function scaledSize(tx: Queryable, pod: Pod, order: ScaleOrder): Promise<PodSize> {
  requireActive(pod);
  if (pod.containerMissingSince !== null) throw containerMissing();
  const size = await wantedSize(tx, pod, order);
  if (size.diskGb < pod.diskGb) {
    throw new DomainError(
      "invalid",
      "DISK_SHRINK_UNSUPPORTED",
      `A disk can only grow: it has ${pod.diskGb} GB, ${size.diskGb} GB were asked for.`,
      {
        details: { currentDiskGb: pod.diskGb, requestedDiskGb: size.diskGb },
      },
    );
  }
  if (JSON.stringify(size) === JSON.stringify(sizeOf(pod))) {
    throw new DomainError("conflict", "SCALE_WITHOUT_CHANGE", "The pod has this size already.");
  }
  return size;
}

function containerMissing(): DomainError {
  const message = "The host has lost the pod's container: there is nothing to change until a backup is restored.";
  return new DomainError("wrong-state", "CONTAINER_MISSING", message);
}

async function wantedSize(tx: Queryable, pod: Pod, order: ScaleOrder): Promise<PodSize> {
  if (order.planCode !== undefined) {
    const plan = await resolvePlan(tx, order.planCode);
    return {
      planCode: plan.code,
      billingMode: "plan",
      cores: plan.cores,
      memoryMb: plan.memoryMb,
      swapMb: plan.swapMb,
      diskGb: plan.diskGb,
    };
  }
  const { cores = pod.cores, memoryMb = pod.memoryMb, diskGb = pod.diskGb } = order.resources ?? {};
  // Whoever asks for what he has keeps the plan that it is part of.
  if (cores === pod.cores && memoryMb === pod.memoryMb && diskGb === pod.diskGb) return sizeOf(pod);
  // Resources of one's own are no plan's any more and are paid by use.
  return { planCode: null, billingMode: "metered", cores, memoryMb, swapMb: pod.swapMb, diskGb };
}
