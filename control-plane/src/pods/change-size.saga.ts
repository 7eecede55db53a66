import { z } from "zod";
import { followPlan } from "../backups/backup-policy.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { RequestedResources } from "../quotas/quota.ts";
import { countQuota, reserveQuota } from "../quotas/reserve-quota.ts";
import { growClaim, readClaim } from "../scheduling/change-claim.ts";
import type { Footprint } from "../scheduling/growth-verdict.ts";
import type { Saga, Step, StepOutcome } from "../tasks/saga.ts";
import { recordAllocation } from "./allocations.ts";
import { createWish } from "./provision-pod.saga.ts";
import { commandStep } from "./command-steps.ts";
import { differences } from "./container-spec.ts";
import { lockPodById, type Pod } from "./pod.ts";

/** What a pod is, as far as it can be changed by scaling. */
export const podSize = z.object({
  planCode: z.string().nullable(),
  billingMode: z.enum(["plan", "metered"]),
  cores: z.number().int(),
  memoryMb: z.number().int(),
  swapMb: z.number().int(),
  diskGb: z.number().int(),
});
export type PodSize = z.infer<typeof podSize>;

/** Input of a resize task: what to go back to when it fails. */
export const resizeInput = z.object({ from: podSize, to: podSize });

/** Growing a large file system takes minutes. */
export const resizeDeadlineMs = 1_800_000;

/** The size of a pod's row. */
export function sizeOf(pod: Pod): PodSize {
  const { planCode, billingMode, cores, memoryMb, swapMb, diskGb } = pod;
  return { planCode, billingMode, cores, memoryMb, swapMb, diskGb };
}

/**
 * Makes `size` what is wanted of the pod. The quota moves at once; of the host's capacity only what is more
 * is claimed now, because what is less is still occupied until the host has confirmed it.
 * @throws DomainError `QUOTA_EXCEEDED`, `NO_CAPACITY`
 */
export async function wantSize(tx: Queryable, pod: Pod, size: PodSize): Promise<void> {
  await reserveQuota(tx, pod.tenantId, quotaDelta(pod, size));
  await writeSize(tx, pod, size);
  await claimExactly(tx, pod, (claimed) => ({
    cores: Math.max(claimed.cores, size.cores),
    memoryMb: Math.max(claimed.memoryMb, size.memoryMb),
    diskGb: Math.max(claimed.diskGb, size.diskGb),
  }));
}

/** The pod is what it is, whatever quota and host have left for it: nothing more is claimed than was before. */
async function settleSize(tx: Queryable, pod: Pod, size: PodSize): Promise<void> {
  await countQuota(tx, pod.tenantId, quotaDelta(pod, size));
  await writeSize(tx, pod, size);
}

async function claimExactly(tx: Queryable, pod: Pod, target: (claimed: Footprint) => Footprint): Promise<void> {
  const claimed = await readClaim(tx, pod.id);
  if (claimed === undefined) throw new Error(`pod ${pod.id} occupies no node`);
  const wanted = target(claimed);
  await growClaim(tx, pod.id, {
    cores: wanted.cores - claimed.cores,
    memoryMb: wanted.memoryMb - claimed.memoryMb,
    diskGb: wanted.diskGb - claimed.diskGb,
  });
}

function quotaDelta(pod: PodSize, size: PodSize): RequestedResources {
  return {
    pods: 0,
    cpuCores: size.cores - pod.cores,
    memoryMb: size.memoryMb - pod.memoryMb,
    diskGb: size.diskGb - pod.diskGb,
  };
}

async function writeSize(tx: Queryable, pod: Pod, size: PodSize): Promise<void> {
  await tx.execute(sql`
    UPDATE cloud_pods SET plan_code = ${size.planCode}, billing_mode = ${size.billingMode}, cores = ${size.cores}, memory_mb = ${size.memoryMb},
      swap_mb = ${size.swapMb}, disk_gb = ${size.diskGb}, version = version + 1, updated_at = now() WHERE id = ${pod.id}`);
}

const resizeStep = commandStep({
  name: "resize",
  percent: 10,
  waitingFor: "Changing the container's size",
  wish: createWish,
  async onSuccess({ tx, now }, pod, seen): Promise<StepOutcome> {
    const wrong = seen === undefined ? ["nothing that it reports"] : differences(pod, seen);
    // The host's programs report success for a resize that failed; what it has afterwards is what counts.
    if (wrong.length > 0)
      return { kind: "retry", code: "CONFIGURATION_DIFFERS", message: `The host made ${wrong.join(", ")}` };
    await claimExactly(tx, pod, () => pod);
    await recordAllocation(tx, pod, now);
    await tx.execute(sql`UPDATE subscriptions SET plan_code = ${pod.planCode} WHERE id = ${pod.subscriptionId}`);
    await followPlan(tx, pod, now);
    return { kind: "done", message: "The container has its new size" };
  },
});

const undoReserveStep: Step = {
  name: "undo-reserve",
  percent: 10,
  attemptsMax: 10,
  async begin({ tx, task }) {
    const { from } = resizeInput.parse(task.input);
    await settleSize(tx, await lockPodById(tx, task.podId), from);
    return { kind: "done", message: "The old size is wanted again" };
  },
};

/** Back to the old size; a disk that has grown cannot shrink and stays, counted and paid as it is. */
const undoStep = commandStep({
  name: "undo-resize",
  percent: 10,
  waitingFor: "Going back to the old size",
  wish: createWish,
  async onSuccess({ tx, now }, pod, seen): Promise<StepOutcome> {
    const claimed = await readClaim(tx, pod.id);
    const diskGb = Math.max(pod.diskGb, Math.min(seen?.diskGb ?? 0, claimed?.diskGb ?? 0));
    await settleSize(tx, pod, { ...sizeOf(pod), diskGb });
    await claimExactly(tx, pod, () => ({ ...pod, diskGb }));
    await recordAllocation(tx, await lockPodById(tx, pod.id), now);
    return { kind: "done", message: "The container has its old size" };
  },
});

/** A pod becomes larger or smaller where it is. */
export const changeSize: Saga = {
  type: "resize",
  deadlineMs: resizeDeadlineMs,
  steps: [resizeStep],
  undo: [undoReserveStep, undoStep],
  async finish() {
    await Promise.resolve();
  },
};
