import { z } from "@hono/zod-openapi";
import { podStatuses } from "@cloudpods/shared/pod-lifecycle";
import type { UserContext } from "../http/context.ts";
import { timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { meantPlanCode } from "../plans/resolve-plan.ts";
import { joinSql, sql } from "../platform/sql.ts";
import { taskView, toTaskView } from "../tasks/task-view.ts";
import { changePower } from "./change-power.ts";
import { hostname } from "./hostnames.ts";
import type { PodHints } from "./pod-hints.ts";
import { acceptedView, podView, toPodView } from "./pod-view.ts";
import { findPodOfAnyTenant, selectPods, type Pod } from "./pod.ts";

/** Pods of all tenants, for operators. */
export function registerPodAdminRoutes(routes: RouteTable, hints: PodHints): void {
  registerAll(routes);
  registerStats(routes);
  registerQueue(routes);
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/admin/:pod/restart",
    summary: "Restart a pod of any tenant",
    tags: ["operators"],
    access: { platform: "OPERATOR" },
    idempotent: true,
    checksVersion: true,
    responses: { 202: acceptedView },
    async handler({ params, ifMatch }, ctx) {
      const { pod, task } = await ctx.inSystem(async (tx) => {
        const found = await findPodOfAnyTenant(tx, params.pod);
        return await changePower(
          tx,
          { tenantId: found.tenantId, actor: ctx.actor, requestId: ctx.requestId, ifMatch },
          found.id,
          "restart",
        );
      });
      ctx.afterCommit(() => hints.workQueued(task.id, pod.nodeId));
      return {
        status: 202,
        headers: { location: `/api/tasks/${task.id}` },
        body: { pod: toPodView(pod), task: toTaskView(task) },
      };
    },
  });
}

function registerAll(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/admin/all",
    summary: "Pods of all tenants",
    tags: ["operators"],
    access: { platform: "OPERATOR" },
    request: {
      query: listQuery.extend({
        status: z.enum(podStatuses).optional(),
        planCode: z.string().max(64).optional(),
        region: z.string().max(64).optional(),
        tenantId: z.uuid().optional(),
        nodeId: z.uuid().optional(),
        hostname: hostname.optional(),
      }),
    },
    responses: { 200: listOf(podView) },
    async handler({ query }, ctx) {
      const after = decodeCursor(query.cursor, 1)?.[0];
      const planCode = query.planCode === undefined ? undefined : await meantPlanCode(ctx.system, query.planCode);
      const conditions = [
        query.status === undefined ? sql`p.status <> 'deleted'` : sql`p.status = ${query.status}`,
        ...(planCode === undefined ? [] : [sql`p.plan_code = ${planCode}`]),
        ...(query.region === undefined ? [] : [sql`p.region = ${query.region}`]),
        ...(query.tenantId === undefined ? [] : [sql`p.tenant_id = ${query.tenantId}`]),
        ...(query.nodeId === undefined ? [] : [sql`p.node_id = ${query.nodeId}`]),
        ...(query.hostname === undefined ? [] : [sql`p.hostname = ${query.hostname}`]),
        ...(after === undefined ? [] : [sql`p.id < ${after}::uuid`]),
      ];
      const rows = await ctx.system.query<Pod>(
        sql`${selectPods} WHERE ${joinSql(conditions, sql` AND `)} ORDER BY p.id DESC LIMIT ${query.limit + 1}`,
      );
      return { status: 200, body: toPage(rows, query.limit, (pod) => [pod.id], toPodView) };
    },
  });
}

const count = z.object({ name: z.string(), pods: z.number().int() });

function registerStats(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/admin/stats",
    summary: "Counts of pods by status, host and plan",
    tags: ["operators"],
    access: { platform: "OPERATOR" },
    responses: {
      200: z.object({
        total: z.number().int(),
        byStatus: z.array(count),
        byNode: z.array(count),
        byPlan: z.array(count),
      }),
    },
    async handler(_, ctx) {
      // One statement: the counts agree with each other.
      const rows = await ctx.system.query<{ kind: "status" | "node" | "plan"; name: string; pods: number }>(sql`
        SELECT 'status' AS kind, status AS name, count(*)::integer AS pods FROM cloud_pods GROUP BY status
        UNION ALL SELECT 'node', n.name, count(*)::integer FROM cloud_pods p JOIN nodes n ON n.id = p.node_id WHERE p.status <> 'deleted' GROUP BY n.name
        UNION ALL SELECT 'plan', coalesce(plan_code, 'metered'), count(*)::integer FROM cloud_pods WHERE status <> 'deleted' GROUP BY plan_code
        ORDER BY kind, name`);
      const of = (kind: string) => rows.filter((row) => row.kind === kind).map(({ name, pods }) => ({ name, pods }));
      const byStatus = of("status");
      const total = byStatus.filter(({ name }) => name !== "deleted").reduce((sum, { pods }) => sum + pods, 0);
      return { status: 200, body: { total, byStatus, byNode: of("node"), byPlan: of("plan") } };
    },
  });
}

const queuedTask = taskView.extend({
  tenantId: uuid,
  worker: z.string().nullable(),
  leaseUntil: timestamp.nullable(),
  runAfter: timestamp,
  ageSeconds: z.number().int(),
  command: z
    .object({
      id: uuid,
      op: z.string(),
      state: z.string(),
      step: z.string().nullable(),
      percent: z.number().int(),
      node: z.string(),
    })
    .nullable(),
});

type QueueRow = Parameters<typeof toTaskView>[0] & {
  readonly tenantId: string;
  readonly workerId: string | null;
  readonly leaseUntil: Date | null;
  readonly runAfter: Date;
  readonly command: z.infer<typeof queuedTask>["command"];
};

function registerQueue(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/admin/provisioning-queue",
    summary: "Work that is not finished, oldest first, with ages and workers",
    tags: ["operators"],
    access: { platform: "OPERATOR" },
    request: { query: listQuery },
    responses: { 200: listOf(queuedTask) },
    async handler({ query }, ctx: UserContext) {
      const after = decodeCursor(query.cursor, 1)?.[0];
      const rows = await ctx.system.query<QueueRow>(sql`
        SELECT t.id, t.tenant_id AS "tenantId", t.pod_id AS "podId", t.type, t.state, t.step, t.percent, t.attempts,
          t.error_code AS "errorCode", t.error_message AS "errorMessage", t.requested_by AS "requestedBy", t.worker_id AS "workerId",
          t.lease_until AS "leaseUntil", t.run_after AS "runAfter", t.created_at AS "createdAt", t.updated_at AS "updatedAt", t.finished_at AS "finishedAt",
          CASE WHEN c.id IS NOT NULL THEN json_build_object('id', c.id, 'op', c.op, 'state', c.state, 'step', c.step, 'percent', c.percent, 'node', n.name) END AS command
        FROM cloud_pod_provisioning_tasks t LEFT JOIN node_commands c ON c.id = t.command_id LEFT JOIN nodes n ON n.id = c.node_id
        WHERE t.state NOT IN ('succeeded', 'failed', 'cancelled') ${after === undefined ? sql`` : sql`AND t.id > ${after}::uuid`}
        ORDER BY t.id LIMIT ${query.limit + 1}`);
      const present = (row: QueueRow) => ({
        ...toTaskView(row),
        tenantId: row.tenantId,
        worker: row.workerId,
        leaseUntil: row.leaseUntil,
        runAfter: row.runAfter,
        ageSeconds: Math.max(0, Math.round((ctx.now.getTime() - row.createdAt.getTime()) / 1_000)),
        command: row.command,
      });
      return { status: 200, body: toPage(rows, query.limit, (row) => [row.id], present) };
    },
  });
}
