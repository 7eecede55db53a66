import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** What became of the tasks of one type that ended. */
export interface EndedTasks {
  readonly type: string;
  readonly succeeded: number;
  readonly failed: number;
  readonly cancelled: number;
  /** From order to end, of those that succeeded; null without any. */
  readonly p50Seconds: number | null;
  readonly p95Seconds: number | null;
}

/** A task that failed. */
export interface TaskFailure {
  readonly taskId: string;
  readonly type: string;
  readonly podId: string;
  readonly vmid: number;
  readonly tenantId: string;
  readonly node: string | null;
  readonly step: string;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly finishedAt: Date;
}

/** The work of the last 24 hours. */
export interface Provisioning {
  readonly since: Date;
  readonly ordersWithoutPlace: number;
  readonly types: readonly EndedTasks[];
  readonly recentFailures: readonly TaskFailure[];
}

const failuresShown = 20;
const dayAgo = sql`now() - interval '24 hours'`;

/** Reads what ended in the last 24 hours. */
export async function readProvisioning(db: Queryable): Promise<Provisioning> {
  const [types, recentFailures, [orders]] = await Promise.all([
    db.query<EndedTasks>(sql`
      SELECT type, succeeded, failed, cancelled, quantiles[1] AS "p50Seconds", quantiles[2] AS "p95Seconds" FROM (
        SELECT type, count(*) FILTER (WHERE state = 'succeeded')::integer AS succeeded, count(*) FILTER (WHERE state = 'failed')::integer AS failed,
          count(*) FILTER (WHERE state = 'cancelled')::integer AS cancelled,
          percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY date_part('epoch', finished_at - created_at)) FILTER (WHERE state = 'succeeded') AS quantiles
        FROM cloud_pod_provisioning_tasks WHERE finished_at > ${dayAgo} GROUP BY type) AS ended ORDER BY type`),
    db.query<TaskFailure>(sql`
      SELECT t.id AS "taskId", t.type, t.pod_id AS "podId", p.vmid, t.tenant_id AS "tenantId", n.name AS node, t.step, t.error_code AS "errorCode",
        t.error_message AS "errorMessage", t.finished_at AS "finishedAt"
      FROM cloud_pod_provisioning_tasks t JOIN cloud_pods p ON p.id = t.pod_id LEFT JOIN nodes n ON n.id = p.node_id
      WHERE t.state = 'failed' AND t.finished_at > ${dayAgo} ORDER BY t.finished_at DESC LIMIT ${failuresShown}`),
    db.query<{ since: Date; withoutPlace: number }>(sql`
      SELECT ${dayAgo} AS since, count(*)::integer AS "withoutPlace" FROM placement_failures WHERE at > ${dayAgo}`),
  ]);
  if (orders === undefined) throw new Error("an aggregate has no row");
  return { since: orders.since, ordersWithoutPlace: orders.withoutPlace, types, recentFailures };
}
