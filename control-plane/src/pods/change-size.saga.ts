import { z } from "zod";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { reserveQuota } from "../quotas/reserve-quota.ts";
import { growClaim } from "../scheduling/change-claim.ts";
import type { Saga, StepOutcome } from "../tasks/saga.ts";
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
 * Makes `size` what is wanted of the pod, with the quota and the host's capacity that it takes or frees.
 * @throws DomainError `QUOTA_EXCEEDED`, `NO_CAPACITY`
 */
export async function wantSize(tx: Queryable, pod: Pod, size: PodSize): Promise<void> {
  const delta = {
    cores: size.cores - pod.cores,
    memoryMb: size.memoryMb - pod.memoryMb,
    diskGb: size.diskGb - pod.diskGb,
  };
  await reserveQuota(tx, pod.tenantId, {
    pods: 0,
    cpuCores: delta.cores,
    memoryMb: delta.memoryMb,
    diskGb: delta.diskGb,
  });
  await tx.execute(sql`
    UPDATE cloud_pods SET plan_code = ${size.planCode}, billing_mode = ${size.billingMode}, cores = ${size.cores}, memory_mb = ${size.memoryMb},
      swap_mb = ${size.swapMb}, disk_gb = ${size.diskGb}, version = version + 1, updated_at = now() WHERE id = ${pod.id}`);
  await growClaim(tx, pod.id, delta);
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
    await recordAllocation(tx, pod, now);
    return { kind: "done", message: "The container has its new size" };
  },
});

/** Back to the old size; a disk that has grown cannot shrink and stays, counted and paid as it is. */
const undoStep = commandStep({
  name: "undo-resize",
  percent: 10,
  waitingFor: "Going back to the old size",
  wish: createWish,
  async onSuccess({ tx, now }, pod, seen): Promise<StepOutcome> {
    if (seen !== undefined && seen.diskGb > pod.diskGb)
      await wantSize(tx, pod, { ...sizeOf(pod), diskGb: seen.diskGb });
    await recordAllocation(tx, await lockPodById(tx, pod.id), now);
    return { kind: "done", message: "The container has its old size" };
  },
});

/** A pod becomes larger or smaller where it is. */
export const changeSize: Saga = {
  type: "resize",
  deadlineMs: resizeDeadlineMs,
  steps: [resizeStep],
  undo: [
    {
      name: "undo-reserve",
      percent: 10,
      attemptsMax: 10,
      async begin({ tx, task }) {
        const { from } = resizeInput.parse(task.input);
        await wantSize(tx, await lockPodById(tx, task.podId), from);
        return { kind: "done", message: "Quota and capacity are as before" };
      },
    },
    undoStep,
  ],
  async finish() {
    await Promise.resolve();
  },
};
