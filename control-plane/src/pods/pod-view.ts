import { z } from "@hono/zod-openapi";
import { podStatuses } from "@cloudpods/shared/pod-lifecycle";
import { timestamp, uuid } from "../http/fields.ts";
import { taskView } from "../tasks/task-view.ts";
import { holdEffects, holdKinds } from "./open-holds.ts";
import type { Pod } from "./pod.ts";

const power = z.enum(["running", "stopped", "unknown"]);

/** A pod as the API shows it. */
export const podView = z
  .object({
    id: uuid,
    vmid: z.number().int(),
    tenantId: uuid,
    name: z.string(),
    hostname: z.string(),
    domain: z.string().nullable(),
    region: z.string(),
    status: z.enum(podStatuses),
    power: power.openapi({ description: "What the host saw last." }),
    desiredPower: z.enum(["running", "stopped"]),
    planCode: z.string().nullable(),
    billingMode: z.enum(["plan", "metered"]),
    subscriptionId: uuid.nullable(),
    cores: z.number().int(),
    memoryMb: z.number().int(),
    swapMb: z.number().int(),
    diskGb: z.number().int(),
    ip: z.string().nullable(),
    mac: z.string(),
    node: z.string().nullable().openapi({ description: "Name of the host, null while the pod has no place." }),
    labels: z.record(z.string(), z.string()),
    holds: z
      .array(
        z.object({
          kind: z.enum(holdKinds).openapi({ description: "Who holds the pod back; nobody else lifts it." }),
          effect: z.enum(holdEffects),
          reason: z.string().nullable(),
          since: timestamp,
        }),
      )
      .openapi({ description: "Why the pod is suspended, stopped or slowed; a pod of one's own will is not on hold." }),
    lastError: z.object({ code: z.string(), message: z.string() }).nullable(),
    version: z.number().int(),
    orderedAt: timestamp,
    activatedAt: timestamp.nullable(),
    deletionRequestedAt: timestamp.nullable(),
  })
  .openapi("Pod");

/** The view of a row. */
export function toPodView(pod: Pod): z.input<typeof podView> {
  const { nodeName, observedPower, lastErrorCode, lastErrorMessage, labels, holds, ...rest } = pod;
  return {
    ...rest,
    labels: { ...labels },
    holds: holds.map((hold) => ({ ...hold, since: new Date(hold.since) })),
    power: observedPower,
    node: nodeName,
    lastError: lastErrorCode === null ? null : { code: lastErrorCode, message: lastErrorMessage ?? "" },
  };
}

/** Answer of everything that takes long. */
export const acceptedView = z.object({ pod: podView, task: taskView });
