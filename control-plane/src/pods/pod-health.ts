import { z } from "@hono/zod-openapi";
import { podStatuses } from "@cloudpods/shared/pod-lifecycle";
import { timestamp } from "../http/fields.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { toPodView } from "./pod-view.ts";
import type { Pod } from "./pod.ts";

/** A pod's health as the API shows it. */
export const healthView = z
  .object({
    podId: z.string(),
    status: z.enum(podStatuses),
    power: z.enum(["running", "stopped", "unknown"]),
    desiredPower: z.enum(["running", "stopped"]),
    observedAt: timestamp.nullable(),
    observationAgeSeconds: z.number().int().nullable(),
    ip: z.string().nullable(),
    healthy: z.boolean().openapi({
      description:
        "The host answers, was seen lately and has the pod in the power that is wanted. What else a host has to complain of leaves its pods well.",
    }),
    conditions: z.array(z.object({ kind: z.string(), message: z.string() })).openapi({
      description:
        "What is wrong with the pod, its backups or whether its host answers; for operators all of the host.",
    }),
    lastError: z.object({ code: z.string(), message: z.string() }).nullable(),
  })
  .openapi("PodHealth");

interface Condition {
  readonly kind: string;
  readonly message: string;
}

/** What is known of a pod's host. */
export interface HostSigns {
  /** Absent: it answers. */
  readonly silence: Condition | undefined;
  /** What operators look after: clocks, versions, certificates, promises. The pod runs on regardless. */
  readonly conditions: readonly Condition[];
}

/** Inventories come every few minutes; an older observation says nothing about now. */
const observationFreshMs = 600_000;

/** Reads what is wrong with the host of a pod. */
export async function readHostSigns(db: Queryable, { nodeId }: Pod): Promise<HostSigns> {
  if (nodeId === null) return { silence: undefined, conditions: [] };
  const [[host], conditions] = await Promise.all([
    db.query<{ state: string }>(sql`SELECT state FROM node_status WHERE node_id = ${nodeId} AND state <> 'online'`),
    db.query<Condition>(sql`SELECT kind, message FROM node_conditions WHERE node_id = ${nodeId} ORDER BY kind`),
  ]);
  return { silence: host === undefined ? undefined : silenceOf(host.state), conditions };
}

/** Puts together how a pod is. Customers are told of their pod and whether its host answers, and no more of the host. */
export function healthOf(
  signs: { readonly pod: Pod; readonly ofHost: HostSigns; readonly overdue: readonly Condition[] },
  asked: { readonly now: Date; readonly isForOperator: boolean },
): z.input<typeof healthView> {
  const { pod, ofHost, overdue } = signs;
  const ageMs = pod.observedAt === null ? undefined : asked.now.getTime() - pod.observedAt.getTime();
  const ill = [...missingCondition(pod), ...(ofHost.silence === undefined ? [] : [ofHost.silence])];
  return {
    podId: pod.id,
    status: pod.status,
    power: pod.observedPower,
    desiredPower: pod.desiredPower,
    observedAt: pod.observedAt,
    observationAgeSeconds: ageMs === undefined ? null : Math.max(0, Math.round(ageMs / 1_000)),
    ip: pod.ip,
    healthy:
      pod.status === "active" &&
      pod.observedPower === pod.desiredPower &&
      ageMs !== undefined &&
      ageMs < observationFreshMs &&
      ill.length === 0,
    // Late is not ill: a pod without a fresh backup works.
    conditions: [...ill, ...(asked.isForOperator ? ofHost.conditions : []), ...overdue],
    lastError: toPodView(pod).lastError,
  };
}

function silenceOf(state: string): Condition {
  return { kind: `Host${state.charAt(0).toUpperCase()}${state.slice(1)}`, message: `The host is ${state}` };
}

function missingCondition({ containerMissingSince }: Pod): Condition[] {
  if (containerMissingSince === null) return [];
  const message = `The host has shown no container of this pod since ${containerMissingSince.toISOString()}; a backup can be restored`;
  return [{ kind: "ContainerMissing", message }];
}
