import { drainPodLeftStates } from "@cloudpods/shared/drain-lifecycle";
import type { Drain } from "../drains/drain.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** How far a host is emptied or given up. */
export interface DrainProgress extends Pick<
  Drain,
  "id" | "nodeId" | "node" | "kind" | "state" | "reason" | "startedAt" | "deadlineAt" | "finishedAt" | "outcome"
> {
  readonly pods: number;
  /** Pods that are away, or gone. */
  readonly done: number;
  readonly moving: number;
  /** Pods that have no way or no place, whose move failed, or that were left. */
  readonly stuck: number;
}

/** Hosts that are being emptied or given up, and those of the last day that were not emptied. */
export interface Drains {
  readonly running: readonly DrainProgress[];
  readonly incomplete: readonly DrainProgress[];
}

const drainsShown = 20;

/** Reads drains and evacuations. */
export async function readDrains(db: Queryable): Promise<Drains> {
  const drains = await db.query<DrainProgress>(sql`
    SELECT d.id, d.node_id AS "nodeId", n.name AS node, d.kind, d.state, d.reason, d.started_at AS "startedAt", d.deadline_at AS "deadlineAt",
      d.finished_at AS "finishedAt", d.outcome, c.pods, c.done, c.moving, c.stuck
    FROM (
      (SELECT * FROM node_drains WHERE finished_at IS NULL ORDER BY started_at LIMIT ${drainsShown})
      UNION ALL
      (SELECT * FROM node_drains WHERE state = 'incomplete' AND finished_at > now() - interval '24 hours' ORDER BY finished_at DESC LIMIT ${drainsShown})) AS d
    JOIN nodes n ON n.id = d.node_id
    CROSS JOIN LATERAL (
      SELECT count(*)::integer AS pods, count(*) FILTER (WHERE state = ANY(${drainPodLeftStates}))::integer AS done,
        count(*) FILTER (WHERE state = 'moving')::integer AS moving,
        count(*) FILTER (WHERE state IN ('blocked', 'failed', 'left'))::integer AS stuck
      FROM node_drain_pods p WHERE p.drain_id = d.id) AS c
    ORDER BY coalesce(d.finished_at, d.started_at) DESC, d.id`);
  return {
    running: drains.filter(({ finishedAt }) => finishedAt === null),
    incomplete: drains.filter(({ finishedAt }) => finishedAt !== null),
  };
}
