import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import { podStatuses } from "@cloudpods/shared/pod-lifecycle";
import { overdueCondition } from "../backups/backup-overdue.ts";
import { timestamp } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage, toPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { checkVersion, etagOf } from "../http/version-check.ts";
import { meantPlanCode } from "../plans/resolve-plan.ts";
import { joinSql, sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { taskView, viewsFor } from "../tasks/task-view.ts";
import { taskColumns, type Task } from "../tasks/task.ts";
import { domain, hostname, labels } from "./hostnames.ts";
import { hostsFor, hostsView } from "./placement-hosts.ts";
import { healthOf, healthView, readHostSigns } from "./pod-health.ts";
import { podView, toPodView } from "./pod-view.ts";
import { findPod, lockPod, selectPods, type Pod } from "./pod.ts";

const listFilters = listQuery.extend({
  status: z.enum(podStatuses).optional(),
  planCode: z.string().max(64).optional(),
  region: z.string().max(64).optional(),
  hostname: hostname.optional(),
});

/** Lists, details and changes that no host has to hear of. */
export function registerPodRoutes(routes: RouteTable): void {
  registerLists(routes);
  registerDetails(routes);
  registerPlacement(routes);
  registerObservations(routes);
}

function registerLists(routes: RouteTable): void {
  for (const path of ["/api/cloud-pods", "/api/cloud-pods/my-pods"] as const) {
    route(routes, {
      method: "get",
      path,
      summary: "Pods of the tenant",
      tags: ["pods"],
      access: { scope: "READ" },
      request: { query: listFilters },
      responses: { 200: listOf(podView) },
      async handler({ query }, ctx) {
        const after = decodeCursor(query.cursor, 1)?.[0];
        const planCode = query.planCode === undefined ? undefined : await meantPlanCode(ctx.system, query.planCode);
        const conditions = [
          sql`p.tenant_id = ${ctx.tenantId}`,
          query.status === undefined ? sql`p.status <> 'deleted'` : sql`p.status = ${query.status}`,
          ...(planCode === undefined ? [] : [sql`p.plan_code = ${planCode}`]),
          ...(query.region === undefined ? [] : [sql`p.region = ${query.region}`]),
          ...(query.hostname === undefined ? [] : [sql`p.hostname = ${query.hostname}`]),
          ...(after === undefined ? [] : [sql`p.id < ${after}::uuid`]),
        ];
        const rows = await ctx.inTenant((tx) =>
          tx.query<Pod>(
            sql`${selectPods} WHERE ${joinSql(conditions, sql` AND `)} ORDER BY p.id DESC LIMIT ${query.limit + 1}`,
          ),
        );
        return { status: 200, body: toPage(rows, query.limit, (pod) => [pod.id], toPodView) };
      },
    });
  }
}

function registerDetails(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/:pod",
    summary: "A pod",
    tags: ["pods"],
    access: { scope: "READ" },
    responses: { 200: podView },
    async handler({ params }, ctx) {
      const pod = await ctx.inTenant((tx) => findPod(tx, ctx.tenantId, params.pod));
      return { status: 200, headers: { etag: etagOf(pod.version) }, body: toPodView(pod) };
    },
  });
  route(routes, {
    method: "put",
    path: "/api/cloud-pods/:pod",
    summary: "Rename a pod, change its labels or its domain",
    tags: ["pods"],
    access: { scope: "WRITE" },
    checksVersion: true,
    request: {
      body: z.strictObject({
        name: z.string().min(1).max(100).optional(),
        domain: domain.nullable().optional(),
        labels: labels.optional(),
      }),
      example: { name: "Shop", labels: { tier: "web" } },
    },
    responses: { 200: podView },
    async handler({ params, body, ifMatch }, ctx) {
      const pod = await ctx.inTenant(async (tx) => {
        const before = await lockPod(tx, ctx.tenantId, params.pod);
        if (before.status === "deleted") throw new DomainError("not-found", "POD_NOT_FOUND", "There is no such pod.");
        checkVersion(ifMatch, before.version);
        await tx.execute(sql`
          UPDATE cloud_pods SET name = ${body.name ?? before.name}, domain = ${body.domain === undefined ? before.domain : body.domain},
            labels = ${JSON.stringify(body.labels ?? before.labels)}, version = version + 1, updated_at = now() WHERE id = ${before.id}`);
        await recordAudit(tx, {
          actor: ctx.actor,
          requestId: ctx.requestId,
          tenantId: ctx.tenantId,
          action: "pod.update",
          targetType: "pod",
          targetId: before.id,
          detail: body,
        });
        return await findPod(tx, ctx.tenantId, before.id);
      });
      return { status: 200, headers: { etag: etagOf(pod.version) }, body: toPodView(pod) };
    },
  });
}

const placementView = z
  .object({
    node: z.string().nullable(),
    region: z.string(),
    storage: z.string().nullable(),
    generation: z.bigint().openapi({ type: "string" }),
    summary: z.string().nullable(),
    reasons: z.array(z.unknown()).openapi({ description: "How many hosts fell out for which reason." }),
    hosts: hostsView,
    history: z.array(
      z.object({
        node: z.string().nullable(),
        generation: z.bigint().openapi({ type: "string" }),
        from: timestamp,
        to: timestamp.nullable(),
        downtimeMs: z.number().int().nullable().openapi({
          description: "How long the pod was away to come here from another host, also where it did not arrive.",
        }),
      }),
    ),
  })
  .openapi("PodPlacement");

function registerPlacement(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/:pod/placement",
    summary: "Why a pod sits where it sits",
    tags: ["pods"],
    access: { scope: "READ" },
    responses: { 200: placementView },
    async handler({ params }, ctx) {
      const { pod, history } = await ctx.inTenant(async (tx) => {
        const found = await findPod(tx, ctx.tenantId, params.pod);
        const rows = await tx.query<{
          node: string | null;
          generation: bigint;
          from: Date;
          to: Date | null;
          downtimeMs: number | null;
        }>(sql`
          SELECT n.name AS node, l.generation, l.placed_from AS "from", l.placed_to AS "to", m.downtime_ms AS "downtimeMs"
          FROM cloud_pod_placements l LEFT JOIN nodes n ON n.id = l.node_id
          LEFT JOIN cloud_pod_moves m ON m.pod_id = l.pod_id AND m.to_generation = l.generation
          WHERE l.pod_id = ${found.id} ORDER BY l.generation`);
        return { pod: found, history: rows };
      });
      const { summary, reasons } = pod.placementVerdict;
      return {
        status: 200,
        body: {
          node: pod.nodeName,
          region: pod.region,
          storage: pod.storage,
          generation: pod.generation,
          summary: summary ?? null,
          reasons: [...(reasons ?? [])],
          hosts: hostsFor(ctx, pod.placementVerdict),
          history,
        },
      };
    },
  });
}

function registerObservations(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/:pod/health",
    summary: "What the pod's host saw last",
    tags: ["pods"],
    access: { scope: "READ" },
    responses: { 200: healthView },
    async handler({ params }, ctx) {
      const { pod, overdue } = await ctx.inTenant(async (tx) => {
        const found = await findPod(tx, ctx.tenantId, params.pod);
        return { pod: found, overdue: await overdueCondition(tx, found, ctx.now) };
      });
      const signs = { pod, overdue, ofHost: await readHostSigns(ctx.system, pod) };
      return { status: 200, body: healthOf(signs, { now: ctx.now, isForOperator: ctx.actor.platformRole !== "USER" }) };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/:pod/tasks",
    summary: "History of work on a pod",
    tags: ["pods", "tasks"],
    access: { scope: "READ" },
    request: { query: listQuery },
    responses: { 200: listOf(taskView) },
    async handler({ params, query }, ctx) {
      const before = decodeCursor(query.cursor, 1)?.[0];
      const rows = await ctx.inTenant(async (tx) => {
        const pod = await findPod(tx, ctx.tenantId, params.pod);
        return await tx.query<Task>(sql`
          SELECT ${taskColumns} FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = ${pod.id}
            ${before === undefined ? sql`` : sql`AND t.id < ${before}::uuid`} ORDER BY t.id DESC LIMIT ${query.limit + 1}`);
      });
      const { data, nextCursor } = toIdPage(rows, query.limit, (task) => task);
      return { status: 200, body: { data: await viewsFor(ctx, data), nextCursor } };
    },
  });
}
