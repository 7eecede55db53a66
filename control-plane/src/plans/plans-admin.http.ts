import { z } from "@hono/zod-openapi";
import { route } from "../http/route.ts";
import type { RouteTable } from "../http/route-table.ts";
import { etagOf } from "../http/version-check.ts";
import type { Transaction } from "../platform/database.ts";
import { recordAudit } from "../security/audit.ts";
import { changePlan, createPlan } from "./change-plan.ts";
import { planView } from "./plan-view.ts";
import { meantPlanCode, readPlan } from "./resolve-plan.ts";

const code = z
  .string()
  .regex(/^[A-Z][A-Z0-9_]{1,39}$/, "must be capital letters, digits and underscores")
  .openapi({ example: "CLOUD_POD_LARGE" });
const atMost = (max: number) => z.number().int().min(1).max(max);
const limit = z.number().int().min(0).max(1_000_000).nullable().openapi({ description: "null: not limited" });

const price = z.strictObject({
  amount: z
    .string()
    .regex(/^\d{1,9}(\.\d{1,10})?$/, "must be a decimal number as text")
    .openapi({ example: "1.49", description: "Per month." }),
  currency: z.string().regex(/^[A-Z]{3}$/, "must be an ISO 4217 code"),
});

const terms = z.strictObject({
  name: z.string().trim().min(1).max(100),
  family: z.enum(["shared", "managed"]),
  description: z.string().max(1_000),
  cores: atMost(1_024),
  memoryMb: z.number().int().min(16).max(16_777_216),
  swapMb: z.number().int().min(0).max(16_777_216),
  diskGb: atMost(1_000_000),
  bandwidthGb: limit.openapi({ description: "Per UTC month; null: unmetered." }),
  overagePolicy: z.enum(["throttle", "charge", "none"]),
  websitesMax: limit,
  emailsMax: limit,
  maxPerTenant: limit,
  requiresVerifiedEmail: z.boolean(),
  features: z.array(z.string().min(1).max(200)).max(50),
  isActive: z.boolean(),
  sort: z.number().int().min(0).max(1_000_000),
});

const newPlan = z.strictObject({
  ...terms.shape,
  code,
  price,
  description: terms.shape.description.default(""),
  swapMb: terms.shape.swapMb.default(512),
  bandwidthGb: terms.shape.bandwidthGb.default(null),
  overagePolicy: terms.shape.overagePolicy.default("none"),
  websitesMax: limit.default(null),
  emailsMax: limit.default(null),
  maxPerTenant: limit.default(null),
  requiresVerifiedEmail: z.boolean().default(false),
  features: terms.shape.features.default([]),
  isActive: z.boolean().default(true),
  sort: terms.shape.sort.default(1_000),
});

const planChange = z.strictObject({
  ...terms.partial().shape,
  price: z
    .strictObject({
      ...price.shape,
      from: z.iso
        .datetime()
        .transform((text) => new Date(text))
        .optional()
        .openapi({ type: "string", format: "date-time", description: "Default: now. Never in the past." }),
    })
    .optional(),
});

const adminView = z.object({ ...planView.shape, isActive: z.boolean() }).openapi("PlanForAdministrators");

const tags = ["plans"];
const access = { platform: "ADMINISTRATOR" } as const;

/** Adds the routes by which administrators decide what can be ordered. */
export function registerPlanAdminRoutes(routes: RouteTable): void {
  route(routes, {
    method: "post",
    path: "/api/cloud-pods/plans",
    summary: "Add a plan",
    tags,
    access,
    idempotent: true,
    request: {
      body: newPlan,
      example: {
        code: "CLOUD_POD_LARGE",
        name: "Large",
        family: "shared",
        cores: 8,
        memoryMb: 16_384,
        diskGb: 400,
        price: { amount: "14.90", currency: "USD" },
      },
    },
    responses: { 201: adminView },
    async handler({ body }, ctx) {
      const { code: planCode, price: firstPrice, ...planTerms } = body;
      const plan = await ctx.inSystem(async (tx) => {
        await createPlan(tx, planCode, planTerms, firstPrice);
        await recordAudit(tx, { ...entryOf(ctx, planCode), action: "plan.create", detail: body });
        return await known(tx, planCode);
      });
      return {
        status: 201,
        headers: { location: `/api/cloud-pods/plans/${planCode}`, etag: etagOf(plan.version) },
        body: plan,
      };
    },
  });
  route(routes, {
    method: "put",
    path: "/api/cloud-pods/plans/:code",
    summary: "Change a plan; the size and traffic of one that was sold stay, its price changes from a time on",
    tags,
    access,
    checksVersion: true,
    request: { body: planChange, example: { price: { amount: "1.79", currency: "USD" } } },
    responses: { 200: adminView },
    async handler({ params, body, ifMatch }, ctx) {
      const { price: newPrice, ...changes } = body;
      const plan = await ctx.inSystem(async (tx) => {
        const planCode = await meantPlanCode(tx, params.code);
        await changePlan(
          tx,
          planCode,
          changes,
          newPrice === undefined ? undefined : { ...newPrice, from: newPrice.from },
          ifMatch,
        );
        await recordAudit(tx, { ...entryOf(ctx, planCode), action: "plan.change", detail: body });
        return await known(tx, planCode);
      });
      return { status: 200, headers: { etag: etagOf(plan.version) }, body: plan };
    },
  });
}

function entryOf(ctx: { actor: Parameters<typeof recordAudit>[1]["actor"]; requestId: string }, planCode: string) {
  const { actor, requestId } = ctx;
  return { actor, requestId, tenantId: undefined, targetType: "plan", targetId: planCode };
}

async function known(tx: Transaction, planCode: string) {
  const plan = await readPlan(tx, planCode);
  if (plan === undefined) throw new Error(`the plan ${planCode} has just been written`);
  return plan;
}
