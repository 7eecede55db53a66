import { z } from "@hono/zod-openapi";
import {
  drainPodHasLeft,
  drainPodIsSettled,
  drainPodLeftStates,
  drainPodStates,
  drainStates,
  type DrainPodState,
} from "@cloudpods/shared/drain-lifecycle";
import { timestamp, uuid } from "../http/fields.ts";
import { plannedMoveView } from "../moves/move-views.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Drain } from "./drain.ts";
import { countWaiting, readHeldRooms } from "./read-drain-facts.ts";

const podView = z.object({
  podId: uuid,
  name: z.string(),
  vmid: z.number().int(),
  tenantId: uuid,
  state: z.enum(drainPodStates),
  target: z.string().nullable().openapi({
    description: "Where it goes or has gone, or where it failed; null: it has no place elsewhere, or not any more.",
  }),
  strategy: z.string().nullable(),
  taskId: uuid.nullable(),
  step: z.string().nullable(),
  percent: z.number().int(),
  expectedDowntimeMs: z.number().int().nullable(),
  downtimeMs: z.number().int().nullable().openapi({
    description: "How long it was away, in all tries together, also those that came to nothing, and on its way home.",
  }),
  archiveMadeAt: timestamp
    .nullable()
    .openapi({ description: "Of an evacuation: when the backup was made that the pod comes back from." }),
  archiveAgeSeconds: z.number().int().nullable(),
  blocker: z.object({ code: z.string(), message: z.string() }).nullable(),
});

/** A drain in lists. */
export const drainView = z
  .object({
    id: uuid,
    nodeId: uuid,
    node: z.string(),
    kind: z.enum(["drain", "evacuation"]),
    state: z.enum(drainStates),
    reason: z.string(),
    requestedBy: z.string(),
    requestedByEmail: z.string().nullable().openapi({ description: "Null: a part of the control plane." }),
    maxParallel: z.number().int(),
    deadlineAt: timestamp,
    onNoCapacity: z.enum(["fail", "partial"]),
    onDeadline: z.enum(["leave", "stop-and-restore"]),
    onNoBackup: z.enum(["keep", "mark-lost"]),
    returnHome: z.boolean(),
    cancelRequestedAt: timestamp.nullable(),
    outcome: z.string().nullable(),
    startedAt: timestamp,
    finishedAt: timestamp.nullable(),
    returnedAt: timestamp.nullable(),
  })
  .openapi("Drain");

/** A drain by itself, with each of its pods. */
export const drainDetail = drainView
  .extend({
    percent: z.number().int().openapi({ description: "100 only of a host that is drained." }),
    waitsFor: z.string().nullable().openapi({
      description:
        "What keeps the drain as a whole: its host is away, pods have no place at present, or, once all have left, a copy that is not gone from there yet.",
    }),
    counts: z.record(z.string(), z.number().int()).openapi({ description: "How many pods are in which state." }),
    downtimeMs: z
      .object({ p50: z.number().int(), p95: z.number().int(), max: z.number().int() })
      .nullable()
      .openapi({ description: "Of the pods that were away for it, whether they moved or not." }),
    pods: z.array(podView),
  })
  .openapi("DrainDetail");

/** What a drain would do. */
export const drainPlanView = z
  .object({
    dryRun: z.literal(true),
    node: z.string(),
    moves: z.array(plannedMoveView),
    movable: z.number().int(),
    blocked: z.number().int(),
    totalMs: z.number().int().nullable().openapi({ description: "All moves, as many at once as are allowed." }),
  })
  .openapi("DrainPlan");

type PodRow = Omit<z.input<typeof podView>, "blocker" | "archiveAgeSeconds"> & {
  readonly blockerCode: string | null;
  readonly blockerMessage: string | null;
};

/** Each pod of a drain with the work on it, as it is now. */
export async function describeDrain(tx: Queryable, drain: Drain, now: Date): Promise<z.input<typeof drainDetail>> {
  const rows = await tx.query<PodRow>(sql`
    SELECT d.pod_id AS "podId", p.name, p.vmid, p.tenant_id AS "tenantId", d.state, t.name AS target,
      CASE WHEN t.id IS NOT NULL THEN m.strategy END AS strategy, m.task_id AS "taskId", k.step,
      CASE WHEN d.state = ANY(${drainPodLeftStates}) THEN 100 WHEN d.state = 'moving' THEN coalesce(k.percent, 0) ELSE 0 END AS percent,
      d.expected_downtime_ms AS "expectedDowntimeMs", away.ms AS "downtimeMs", d.archive_made_at AS "archiveMadeAt",
      -- Whoever has no place yet because of other work waits for that; nothing has to write it down.
      CASE WHEN d.state = 'pending' AND busy.type IS NOT NULL THEN 'POD_BUSY' ELSE d.blocker_code END AS "blockerCode",
      CASE WHEN d.state = 'pending' AND busy.type IS NOT NULL THEN 'Other work on the pod is not finished: ' || busy.type || '.' ELSE d.blocker_message END AS "blockerMessage"
    FROM node_drain_pods d JOIN node_drains r ON r.id = d.drain_id JOIN cloud_pods p ON p.id = d.pod_id LEFT JOIN cloud_pod_moves m ON m.id = d.move_id
      -- Of one that could not come home: where it is. A place that was given back is none to be told of.
      LEFT JOIN nodes t ON d.state NOT IN ('pending', 'blocked', 'left', 'gone', 'lost')
        AND t.id = CASE WHEN m.purpose = 'return' AND d.state IN ('moved', 'stayed') THEN m.from_node_id ELSE m.to_node_id END
      LEFT JOIN cloud_pod_provisioning_tasks k ON k.id = m.task_id
      LEFT JOIN LATERAL (SELECT o.type FROM cloud_pod_provisioning_tasks o
        WHERE o.pod_id = d.pod_id AND o.state NOT IN ('succeeded', 'failed', 'cancelled') ORDER BY o.id LIMIT 1) busy ON true
      -- All that the drain has cost the pod: every try, and its way home.
      LEFT JOIN LATERAL (SELECT sum(a.downtime_ms)::integer AS ms FROM cloud_pod_moves a WHERE a.pod_id = d.pod_id AND a.created_at >= r.started_at AND (
          a.purpose IN ('drain', 'evacuate') AND a.from_node_id = r.node_id AND a.created_at <= coalesce(r.finished_at, now())
          OR a.purpose = 'return' AND a.to_node_id = r.node_id AND a.created_at <= coalesce(r.returned_at, now()))) away ON true
    WHERE d.drain_id = ${drain.id} ORDER BY p.memory_mb DESC, p.disk_gb DESC, p.id`);
  const pods = rows.map(({ blockerCode, blockerMessage, ...pod }) => ({
    ...pod,
    archiveAgeSeconds:
      pod.archiveMadeAt === null
        ? null
        : Math.max(0, Math.round((now.getTime() - pod.archiveMadeAt.getTime()) / 1_000)),
    blocker: blockerCode === null ? null : { code: blockerCode, message: blockerMessage ?? "" },
  }));
  const counts: Record<string, number> = {};
  for (const { state } of pods) counts[state] = (counts[state] ?? 0) + 1;
  const away = pods.flatMap(({ downtimeMs }) => (downtimeMs === null ? [] : [downtimeMs])).toSorted((a, b) => a - b);
  return {
    ...drain,
    percent: percentOf(drain, pods),
    waitsFor: await waitsFor(tx, drain, pods),
    counts,
    downtimeMs:
      away.length === 0 ? null : { p50: quantile(away, 0.5), p95: quantile(away, 0.95), max: away.at(-1) ?? 0 },
    pods,
  };
}

function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0;
}

/** The pods alone do not make a host empty: its word that nothing is left of them does. */
function percentOf({ state }: Drain, pods: readonly { readonly percent: number }[]): number {
  if (state === "drained") return 100;
  const total = pods.reduce((sum, { percent }) => sum + percent, 0);
  return pods.length === 0 ? 0 : Math.min(99, Math.floor(total / pods.length));
}

const namedMax = 5;

async function waitsFor(
  tx: Queryable,
  drain: Drain,
  pods: readonly { readonly state: DrainPodState }[],
): Promise<string | null> {
  const { kind, nodeId, node, finishedAt } = drain;
  if (finishedAt !== null) return null;
  const placeless = pods.every(({ state }) => drainPodIsSettled[state]) ? await countWaiting(tx, drain) : 0;
  if (placeless > 0)
    return `${placeless} ${placeless === 1 ? "pod has" : "pods have"} no place at present; it is looked for again every minute until time is up.`;
  if (kind !== "drain") return null;
  const [held, [status]] = await Promise.all([
    readHeldRooms(tx, nodeId),
    tx.query<{ state: string }>(sql`SELECT state FROM node_status WHERE node_id = ${nodeId}`),
  ]);
  if (!pods.every(({ state }) => drainPodHasLeft[state])) {
    const isAway = status !== undefined && status.state !== "online" && status.state !== "degraded";
    if (!isAway) return null;
    return `${node} is ${status.state}: what it has to do itself waits until it is back. If it is gone for good, evacuate it.`;
  }
  if (held.length === 0) return null;
  const named = held.slice(0, namedMax).map(({ name, vmid }) => `${name} (${vmid})`);
  const more = held.length > named.length ? ` and ${held.length - named.length} more` : "";
  const standing = status === undefined || status.state === "online" ? "" : `; it is ${status.state}`;
  return `${node} has yet to say that nothing is left there of ${named.join(", ")}${more}${standing}.`;
}
