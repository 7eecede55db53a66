import { z } from "@hono/zod-openapi";
import type { TenantContext } from "../http/context.ts";
import { counter, timestamp, uuid } from "../http/fields.ts";
import type { ToldCommand } from "../nodes/ask-hosts.ts";
import { commandView } from "../nodes/command-view.ts";
import { orderViews, presentOrder } from "../pods/dry-run-view.ts";
import { backupModes, backupStates, type Backup } from "./backup.ts";
import type { NewPodPlan, RestorePlan } from "./plan-restore.ts";

/** A backup as the API shows it. */
export const backupView = z
  .object({
    id: uuid,
    podId: uuid,
    kind: z.enum(["scheduled", "manual", "final"]),
    mode: z
      .enum(backupModes)
      .openapi({ description: "How the pod was held still: not at all, for seconds, or stopped." }),
    state: z.enum(backupStates),
    sizeBytes: counter.nullable(),
    note: z.string().nullable(),
    spec: z
      .object({
        hostname: z.string(),
        cores: z.number().int(),
        memoryMb: z.number().int(),
        swapMb: z.number().int(),
        diskGb: z.number().int(),
        planCode: z.string().nullable(),
      })
      .openapi({ description: "What the pod was." }),
    startedAt: timestamp,
    finishedAt: timestamp.nullable(),
    verifiedAt: timestamp.nullable().openapi({ description: "When it was last read to its end without a fault." }),
    damagedAt: timestamp
      .nullable()
      .openapi({ description: "Not there or not readable since; nothing can be restored from it." }),
    expiresAt: timestamp.nullable().openapi({ description: "Null: as the pod's rules say." }),
    deleteRequestedAt: timestamp.nullable(),
    prunedAt: timestamp.nullable(),
    error: z.object({ code: z.string(), message: z.string() }).nullable(),
    taskId: uuid.nullable(),
  })
  .openapi("Backup");

/** The view of a row. Where an archive lies is its host's business. */
export function toBackupView({ errorCode, errorMessage, ...rest }: Backup): z.input<typeof backupView> {
  return { ...rest, error: errorCode === null ? null : { code: errorCode, message: errorMessage ?? "" } };
}

/** What a restore would do. */
export const restorePlanView = z
  .object({
    dryRun: z.literal(true),
    podId: uuid,
    name: z.string(),
    vmid: z.number().int(),
    backup: z.object({ id: uuid, madeAt: timestamp, ageSeconds: z.number().int() }).openapi({
      description:
        "What the pod would be put back to, and what was written since `madeAt` is lost; or what a new pod would hold.",
    }),
    newerBackups: z
      .number()
      .int()
      .openapi({ description: "Backups made since that can be restored too: they stay, with what they hold." }),
    newPod: z
      .object({
        hostname: z.string(),
        planCode: z.string().nullable(),
        cores: z.number().int(),
        memoryMb: z.number().int(),
        diskGb: z.number().int(),
        ...orderViews,
      })
      .nullable()
      .openapi({ description: "What the order of a new pod would come to; null of a restore in place." }),
    runs: z
      .boolean()
      .openapi({ description: "Whether the pod would run afterwards, as is wanted of it now; a new one would." }),
    commands: z.array(commandView).openapi({
      description:
        "What the host would be told, in order; none where no host has room for a new pod. Before anything is given up it also asks itself once more.",
    }),
  })
  .openapi("RestorePlan");

/** The view of a plan with what the host says to it. */
export function toRestorePlanView(
  plan: RestorePlan,
  commands: readonly ToldCommand[],
  now: Date,
): z.input<typeof restorePlanView> {
  return { ...toPlanView(plan, commands, now), newPod: null, runs: plan.runs };
}

/** As `toRestorePlanView`, of a new pod. */
export function toNewPodPlanView(
  plan: NewPodPlan,
  commands: readonly ToldCommand[],
  ctx: TenantContext,
): z.input<typeof restorePlanView> {
  const { hostname, planned } = plan;
  const { plan: ordered, cores, memoryMb, diskGb } = planned.size;
  const newPod = { hostname, planCode: ordered?.code ?? null, cores, memoryMb, diskGb, ...presentOrder(ctx, planned) };
  return { ...toPlanView(plan, commands, ctx.now), newPod, runs: true };
}

function toPlanView(
  { pod, backup, newerBackups }: Pick<RestorePlan, "pod" | "backup" | "newerBackups">,
  commands: readonly ToldCommand[],
  now: Date,
) {
  const ageSeconds = Math.max(0, Math.round((now.getTime() - backup.startedAt.getTime()) / 1_000));
  return {
    dryRun: true as const,
    podId: pod.id,
    name: pod.name,
    vmid: pod.vmid,
    backup: { id: backup.id, madeAt: backup.startedAt, ageSeconds },
    newerBackups,
    commands: [...commands],
  };
}
