import { z } from "@hono/zod-openapi";
import type { TenantContext } from "../http/context.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { changePower, resumePod, suspendPod, type Accepted } from "./change-power.ts";
import type { HoldKind } from "./open-holds.ts";
import { acceptedView, toPodView } from "./pod-view.ts";
import { toTaskView } from "../tasks/task-view.ts";
import type { PodHints } from "./pod-hints.ts";
import type { Requester } from "./request-work.ts";

/** Start, stop, restart, suspend and resume. */
export function registerPodPowerRoutes(routes: RouteTable, hints: PodHints): void {
  for (const verb of ["start", "stop", "restart"] as const) {
    route(routes, {
      method: "post",
      path: `/api/cloud-pods/:pod/${verb}`,
      summary: `${verb[0]?.toUpperCase()}${verb.slice(1)} a pod`,
      tags: ["pods"],
      access: { scope: "PROVISIONING" },
      idempotent: true,
      checksVersion: true,
      responses: { 202: acceptedView },
      handler: async ({ params, ifMatch }, ctx) =>
        accepted(await ctx.inTenant((tx) => changePower(tx, requester(ctx, ifMatch), params.pod, verb)), ctx, hints),
    });
  }
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/:pod/suspend",
    summary: "Suspend a pod: stopped, and out of the quota",
    tags: ["pods"],
    access: { scope: "PROVISIONING" },
    idempotent: true,
    checksVersion: true,
    request: {
      body: z.strictObject({ reason: z.string().max(500).optional() }).optional(),
      example: { reason: "season is over" },
    },
    responses: { 202: acceptedView },
    handler: async ({ params, body, ifMatch }, ctx) =>
      accepted(
        await ctx.inTenant((tx) => suspendPod(tx, requester(ctx, ifMatch), params.pod, authorityOf(ctx), body?.reason)),
        ctx,
        hints,
      ),
  });
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/:pod/resume",
    summary: "Resume a pod: its owner what he suspended, an operator what operators did",
    tags: ["pods"],
    access: { scope: "PROVISIONING" },
    idempotent: true,
    checksVersion: true,
    responses: { 202: acceptedView },
    handler: async ({ params, ifMatch }, ctx) =>
      accepted(
        await ctx.inTenant((tx) => resumePod(tx, requester(ctx, ifMatch), params.pod, authorityOf(ctx))),
        ctx,
        hints,
      ),
  });
}

/** An operator's hold is nothing that the customer could lift, and the other way round. */
function authorityOf(ctx: TenantContext): HoldKind {
  return ctx.asOperator ? "operator" : "customer";
}

/** Who asks, out of the request. */
export function requester(ctx: TenantContext, ifMatch?: number): Requester {
  return { tenantId: ctx.tenantId, actor: ctx.actor, requestId: ctx.requestId, ifMatch };
}

/** 202 with the pod and its task; wakes who carries it out after the commit. */
export function accepted(result: Accepted, ctx: TenantContext, hints: PodHints) {
  ctx.afterCommit(() => hints.workQueued(result.task.id, result.pod.nodeId));
  return {
    status: 202 as const,
    headers: { location: `/api/tasks/${result.task.id}` },
    body: { pod: toPodView(result.pod), task: toTaskView(result.task) },
  };
}
