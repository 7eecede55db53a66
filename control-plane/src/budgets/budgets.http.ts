import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import { Money } from "@cloudpods/shared/money";
import type { TenantContext } from "../http/context.ts";
import { timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { checkVersion, etagOf } from "../http/version-check.ts";
import { readWebhook } from "../notifications/webhook-secret.ts";
import { requireWebhookUrl, type WebhookRules } from "../notifications/webhook-target.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { accrueMonth } from "../rating/accrual.ts";
import { recordAudit } from "../security/audit.ts";
import { acknowledgeAlert, listAlerts } from "./alerts.ts";
import { evaluationDelaySeconds } from "./budget-loops.ts";
import { readBudget, writeBudget, type Budget } from "./budget.ts";
import { decideBudget, worstCaseOvershoot } from "./decide-budget.ts";
import { readPace } from "./read-pace.ts";

/** What these routes need besides their contexts. */
export interface BudgetRouteDeps {
  readonly accrue: typeof accrueMonth;
  readonly webhookRules: WebhookRules;
  readonly sampleIntervalMs: number;
}

const amount = z
  .string()
  .regex(/^(?=.*[1-9])\d{1,10}(\.\d{1,4})?$/, "must be a decimal amount above nought, such as 50.00")
  .openapi({ example: "50.00" });
const threshold = z.number().int().min(1).max(1_000);

const settings = {
  alertThreshold1: threshold.default(50),
  alertThreshold2: threshold.default(80),
  alertThreshold3: threshold.default(100),
  hardLimitEnabled: z.boolean().default(false),
  hardLimitAction: z
    .enum(["notify_only", "stop_pods"])
    .default("notify_only")
    .openapi({
      description:
        "stop_pods: at the limit pods stop, those with the smallest number in their label `priority` first (none: 0), and " +
        "nothing starts until the budget is raised or the month (UTC) turns; then they are given back.",
    }),
  notificationEmails: z
    .array(z.email().max(254))
    .max(10)
    .default([])
    .openapi({ description: "Empty: the billing address, else the owners." }),
  webhookUrl: z.string().nullable().default(null).openapi({ description: "Null: the tenant's own webhook." }),
};

const budgetWish = z
  .strictObject({
    monthlyLimit: amount.optional().openapi({ description: "In the tenant's currency." }),
    monthlyLimitUsd: amount.optional().openapi({ description: "The same, for tenants who are billed in USD." }),
    ...settings,
  })
  .refine((body) => (body.monthlyLimit === undefined) !== (body.monthlyLimitUsd === undefined), {
    path: ["monthlyLimit"],
    error: "name either monthlyLimit or monthlyLimitUsd",
  })
  .refine((body) => body.alertThreshold1 < body.alertThreshold2 && body.alertThreshold2 < body.alertThreshold3, {
    path: ["alertThreshold2"],
    error: "the thresholds must rise",
  })
  .openapi("BudgetWish");

const budgetView = z
  .discriminatedUnion("configured", [
    z.object({ configured: z.literal(false) }),
    z.object({
      configured: z.literal(true),
      monthlyLimit: z.string(),
      monthlyLimitUsd: z.string().optional(),
      currency: z.string(),
      alertThreshold1: threshold,
      alertThreshold2: threshold,
      alertThreshold3: threshold,
      hardLimitEnabled: z.boolean(),
      hardLimitAction: z.enum(["notify_only", "stop_pods"]),
      notificationEmails: z.array(z.string()),
      webhookUrl: z.string().nullable(),
      podsStopped: z.boolean().openapi({ description: "The hard limit is reached: pods do not run or start." }),
      yearMonth: z.string().openapi({ description: "UTC", example: "2026-01" }),
      currentSpend: z.string(),
      percentUsed: z.string().openapi({ description: "One place, rounded down.", example: "79.9" }),
      burnRatePerHour: z.string().openapi({ description: "At the pace of the last hour." }),
      evaluationDelaySeconds: z
        .number()
        .int()
        .openapi({ description: "From reaching the limit to stopped pods, at the longest, with everything at work." }),
      unmeasuredCost: z.string().openapi({
        description:
          "What running pods may have cost since their hosts last reported, at most: no spend until it is measured.",
      }),
      worstCaseOvershoot: z
        .string()
        .openapi({ description: "burnRatePerHour × evaluationDelaySeconds + unmeasuredCost." }),
      updatedAt: timestamp,
      version: z.number().int(),
    }),
  ])
  .openapi("Budget");

const alertView = z
  .object({
    id: uuid,
    yearMonth: z.string(),
    threshold: z.number().int(),
    currentSpend: z.string(),
    budgetLimit: z.string(),
    currency: z.string(),
    percentUsed: z.string(),
    notifiedVia: z.array(z.enum(["email", "webhook"])),
    alertedAt: timestamp,
    acknowledged: z.boolean(),
    acknowledgedAt: timestamp.nullable(),
    acknowledgedBy: uuid.nullable(),
  })
  .openapi("BudgetAlert");

const tags = ["budgets"];

/** The budget of a tenant and its alerts. */
export function registerBudgetRoutes(routes: RouteTable, deps: BudgetRouteDeps): void {
  registerBudget(routes, deps);
  registerAlerts(routes);
}

function registerBudget(routes: RouteTable, deps: BudgetRouteDeps): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/budget",
    summary: "The monthly budget and where it stands",
    tags,
    access: { scope: "READ" },
    responses: { 200: budgetView },
    async handler(_request, ctx) {
      const budget = await ctx.inTenant((tx) => readBudget(tx, ctx.tenantId));
      if (budget === undefined) return { status: 200, body: { configured: false } };
      return { status: 200, headers: { etag: etagOf(budget.version) }, body: await present(deps, ctx, budget) };
    },
  });
  route(routes, {
    method: "put",
    path: "/api/cloud-pods/budget",
    summary: "Set the monthly budget; what follows from it happens within a minute",
    tags,
    access: { scope: "BILLING" },
    checksVersion: true,
    request: { body: budgetWish, example: { monthlyLimit: "50.00" } },
    responses: { 200: budgetView },
    async handler({ body, ifMatch }, ctx) {
      requireWebhookUrl(body.webhookUrl, "/webhookUrl", deps.webhookRules);
      const budget = await ctx.inTenant(async (tx) => {
        checkVersion(ifMatch, (await readBudget(tx, ctx.tenantId, true))?.version ?? 0);
        if (body.webhookUrl !== null) await requireWebhookSecret(tx, ctx.tenantId);
        await writeBudget(tx, ctx.tenantId, {
          limit: await limitOf(tx, ctx.tenantId, body),
          thresholds: [body.alertThreshold1, body.alertThreshold2, body.alertThreshold3],
          hardLimitEnabled: body.hardLimitEnabled,
          hardLimitAction: body.hardLimitAction,
          emails: body.notificationEmails,
          webhookUrl: body.webhookUrl,
        });
        await recordAudit(tx, {
          actor: ctx.actor,
          requestId: ctx.requestId,
          tenantId: ctx.tenantId,
          action: "budget.set",
          targetType: "tenant",
          targetId: ctx.tenantId,
          // Without the URL, which may hold a key of the receiver's.
          detail: { ...body, webhookUrl: body.webhookUrl === null ? null : new URL(body.webhookUrl).host },
        });
        return await readBudget(tx, ctx.tenantId);
      });
      if (budget === undefined) throw new Error("a budget that was written was not found");
      return { status: 200, headers: { etag: etagOf(budget.version) }, body: await present(deps, ctx, budget) };
    },
  });
}

function registerAlerts(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/budget/alerts",
    summary: "Thresholds that were reached, newest first",
    tags,
    access: { scope: "READ" },
    request: { query: listQuery },
    responses: { 200: listOf(alertView) },
    async handler({ query }, ctx) {
      const beforeId = decodeCursor(query.cursor, 1)?.[0];
      const rows = await ctx.inTenant((tx) => listAlerts(tx, ctx.tenantId, query.limit + 1, beforeId));
      return {
        status: 200,
        body: toIdPage(rows, query.limit, (row) => row),
      };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/budget/alerts/:id/acknowledge",
    summary: "Note that somebody has seen an alert; who was first stays",
    tags,
    access: { scope: "BILLING" },
    responses: { 200: alertView },
    async handler({ params }, ctx) {
      const body = await ctx.inTenant(async (tx) => {
        const { alert, isFirst } = await acknowledgeAlert(tx, ctx.tenantId, params.id, ctx.actor.userId);
        if (isFirst)
          await recordAudit(tx, {
            actor: ctx.actor,
            requestId: ctx.requestId,
            tenantId: ctx.tenantId,
            action: "budget-alert.acknowledge",
            targetType: "tenant",
            targetId: ctx.tenantId,
            detail: { alertId: alert.id, yearMonth: alert.yearMonth, threshold: alert.threshold },
          });
        return alert;
      });
      return { status: 200, body };
    },
  });
}

async function present(deps: BudgetRouteDeps, ctx: TenantContext, budget: Budget): Promise<z.input<typeof budgetView>> {
  const { limit, thresholds, hardLimitEnabled, hardLimitAction, updatedAt, version, webhookUrl } = budget;
  // Samples and rated hours have no grant for tenants; the pace reads this tenant's alone.
  const pace = await readPace(ctx.system, deps.accrue, ctx.tenantId, ctx.now);
  const delaySeconds = evaluationDelaySeconds(deps.sampleIntervalMs);
  const [alertThreshold1 = 0, alertThreshold2 = 0, alertThreshold3 = 0] = thresholds;
  return {
    configured: true,
    monthlyLimit: limit.toString(),
    ...(limit.currency === "USD" ? { monthlyLimitUsd: limit.toString() } : {}),
    currency: limit.currency,
    alertThreshold1,
    alertThreshold2,
    alertThreshold3,
    hardLimitEnabled,
    hardLimitAction,
    notificationEmails: [...budget.emails],
    webhookUrl,
    podsStopped: budget.exhaustedMonth === pace.yearMonth && hardLimitEnabled && hardLimitAction === "stop_pods",
    yearMonth: pace.yearMonth,
    currentSpend: pace.spend.rounded().toString(),
    percentUsed: decideBudget(budget, pace.spend).percentUsed,
    burnRatePerHour: pace.perHour.toString(),
    evaluationDelaySeconds: delaySeconds,
    unmeasuredCost: pace.unmeasured.toString(),
    worstCaseOvershoot: worstCaseOvershoot(pace.perHour, delaySeconds).plus(pace.unmeasured).toString(),
    updatedAt,
    version,
  };
}

async function limitOf(
  tx: Queryable,
  tenantId: string,
  body: { readonly monthlyLimit?: string | undefined; readonly monthlyLimitUsd?: string | undefined },
): Promise<Money> {
  const [tenant] = await tx.query<{ currency: string }>(sql`SELECT currency FROM tenants WHERE id = ${tenantId}`);
  if (tenant === undefined) throw new Error(`tenant ${tenantId} vanished`);
  if (body.monthlyLimitUsd !== undefined && tenant.currency !== "USD") {
    const detail = `The tenant is billed in ${tenant.currency}: name monthlyLimit.`;
    throw new DomainError("invalid", "CURRENCY_MISMATCH", detail, {
      errors: [{ pointer: "/monthlyLimitUsd", detail }],
    });
  }
  return Money.of(body.monthlyLimit ?? body.monthlyLimitUsd ?? "0", tenant.currency);
}

async function requireWebhookSecret(tx: Parameters<typeof readWebhook>[0], tenantId: string): Promise<void> {
  if ((await readWebhook(tx, tenantId)).version > 0) return;
  const detail = "Webhooks are signed with the tenant's secret: make it with PUT /api/tenants/:tenant/webhooks first.";
  throw new DomainError("invalid", "WEBHOOK_SECRET_MISSING", detail, { errors: [{ pointer: "/webhookUrl", detail }] });
}
