import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable, Transaction } from "../platform/database.ts";
import { resolvePlan } from "../plans/resolve-plan.ts";
import type { Accepted } from "./change-power.ts";
import { resizeDeadlineMs, sizeOf, wantSize, type PodSize } from "./change-size.saga.ts";
import { lockPod, type Pod } from "./pod.ts";
import { requirePlanFree, requireProvenAddress } from "./plan-limits.ts";
import { lockAskedPod, requestWork, type Requester } from "./request-work.ts";

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
 *   `PLAN_LIMIT_REACHED`, `QUOTA_EXCEEDED`, `NO_CAPACITY`,
 *   `POD_WRONG_STATE`, `POD_BUSY`, `VERSION_MISMATCH`
 */
export async function scalePod(
  tx: Transaction,
  who: Requester & { readonly isEmailVerified: () => Promise<boolean> },
  reference: string,
  order: ScaleOrder,
): Promise<Accepted> {
  const pod = await lockAskedPod(tx, who, reference);
  const size = await scaledSize(tx, pod, order);
  await wantSize(tx, pod, size);
  if (size.planCode !== null && size.planCode !== pod.planCode) {
    const plan = await resolvePlan(tx, size.planCode);
    await requireProvenAddress(plan, who.isEmailVerified);
    await requirePlanFree(tx, who.tenantId, plan, pod.id);
  }
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
 * The size that a pod would have.
 * @throws DomainError as `scalePod`, but for what depends on quota and capacity
 */
export async function scaledSize(tx: Queryable, pod: Pod, order: ScaleOrder): Promise<PodSize> {
  if (pod.status !== "active") {
    throw new DomainError(
      "wrong-state",
      "POD_WRONG_STATE",
      `The pod is ${pod.status}; this needs a pod that is active.`,
      {
        details: { status: pod.status, allowed: ["active"] },
      },
    );
  }
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
  const { cores, memoryMb, diskGb } = order.resources ?? {};
  // Resources of one's own are no plan's any more and are paid by use.
  return {
    planCode: null,
    billingMode: "metered",
    cores: cores ?? pod.cores,
    memoryMb: memoryMb ?? pod.memoryMb,
    swapMb: pod.swapMb,
    diskGb: diskGb ?? pod.diskGb,
  };
}
