import { z } from "@hono/zod-openapi";
import { readBudget } from "../budgets/budget.ts";
import { download } from "../http/download.ts";
import { eventStream } from "../http/event-stream.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { findPod } from "../pods/pod.ts";
import { accruedThisMonth } from "../rating/accrual.ts";
import { currentUsage, currentUsageView } from "./current-usage.ts";
import { exportUsage } from "./export-usage.ts";
import { estimate, estimateView, estimateWish, pricingOf } from "./estimate.ts";
import { followAccrual } from "./follow-accrual.ts";
import { forecastView, readForecast, shownForecast } from "./usage-forecast.ts";
import { yearMonth } from "./usage-fields.ts";
import { readUsageHistory, usageHistoryView } from "./usage-history.ts";
import { usageMonth, usageMonthOf } from "./usage-month.ts";

/** How often a stream looks at what has accrued. */
const lookEveryMs = 5_000;

const tags = ["usage"];
const access = { scope: "READ" } as const;

/** Adds what tenants see of their usage and its cost. Hours, days and months are UTC. */
export function registerUsageRoutes(routes: RouteTable): void {
  registerCurrent(routes);
  registerEstimate(routes);
  registerHistory(routes);
  registerExport(routes);
}

function registerCurrent(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/usage/current",
    summary: "This UTC month's usage and cost so far, by pod",
    tags,
    access,
    responses: { 200: currentUsageView },
    async handler(_, ctx) {
      const [month, budget] = await Promise.all([
        accruedThisMonth(ctx.system, ctx.tenantId, ctx.now),
        ctx.inTenant((tx) => readBudget(tx, ctx.tenantId)),
      ]);
      return { status: 200, body: currentUsage(month, budget) };
    },
  });
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/usage/forecast",
    summary: "What will have been spent at the end of this UTC month, with an interval",
    tags,
    access,
    responses: { 200: forecastView },
    async handler(_, ctx) {
      const month = await accruedThisMonth(ctx.system, ctx.tenantId, ctx.now);
      const forecast = await ctx.inTenant((tx) => readForecast(tx, month, ctx.tenantId));
      return { status: 200, body: shownForecast(month, forecast) };
    },
  });
  eventStream(routes, {
    path: "/api/cloud-pods/usage/stream",
    summary: "The cost of this UTC month as it accrues",
    tags,
    access,
    async open(_, ctx) {
      const { system, tenantId } = ctx;
      return await Promise.resolve(({ signal }) =>
        followAccrual({
          look: (at) => accruedThisMonth(system, tenantId, at),
          clock: () => new Date(),
          everyMs: lookEveryMs,
          signal,
        }),
      );
    },
  });
}

function registerEstimate(routes: RouteTable): void {
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/usage/estimate",
    summary: "What a metered pod that runs all month would cost, by the tenant's price list of now",
    tags,
    access,
    request: { body: estimateWish, example: { vcpus: 2, memoryMb: 4_096, diskGb: 50, estimatedNetworkOutGb: 0 } },
    responses: { 200: estimateView },
    async handler({ body }, ctx) {
      const pricing = await ctx.inTenant((tx) => pricingOf(tx, ctx.tenantId, ctx.now));
      return { status: 200, body: estimate(pricing, body) };
    },
  });
}

function registerHistory(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/:pod/usage",
    summary: "A pod's usage by UTC day",
    tags,
    access,
    request: {
      query: z.object({
        days: z.coerce
          .number()
          .int()
          .min(1)
          .max(366)
          .default(30)
          .openapi({ type: "integer", minimum: 1, maximum: 366, default: 30 }),
      }),
    },
    responses: { 200: usageHistoryView },
    async handler({ params, query }, ctx) {
      const body = await ctx.inTenant(async (tx) => {
        const pod = await findPod(tx, ctx.tenantId, params.pod);
        return await readUsageHistory(tx, pod.id, query.days, ctx.now);
      });
      return { status: 200, body };
    },
  });
}

function registerExport(routes: RouteTable): void {
  download(routes, {
    path: "/api/cloud-pods/usage/export",
    summary: "A UTC month's charges by pod and day, as CSV in FOCUS columns",
    tags,
    access,
    mediaType: "text/csv",
    request: {
      query: z.object({
        month: yearMonth.optional().openapi({ description: "UTC; default: this month" }),
        format: z.enum(["focus"]).default("focus"),
      }),
    },
    async open({ query }, ctx) {
      const month = query.month === undefined ? usageMonthOf(ctx.now) : usageMonth(query.month);
      const parts = await exportUsage({
        tenantId: ctx.tenantId,
        month,
        now: ctx.now,
        read: (work) => ctx.inTenant(work),
      });
      return { fileName: `usage-${month.yearMonth}.csv`, parts };
    },
  });
}
