import { DomainError } from "@cloudpods/shared/errors";
import { z } from "@hono/zod-openapi";
import type { TenantContext } from "../http/context.ts";
import { uuid } from "../http/fields.ts";
import { route } from "../http/route.ts";
import type { RouteTable } from "../http/route-table.ts";
import { etagOf } from "../http/version-check.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { readQuota, type QuotaState } from "./quota-row.ts";
import { setQuota } from "./set-quota.ts";
import type { TenantQuota } from "./quota.ts";

const amount = z.number().int().min(0).max(1_000_000_000);

const amounts = z.object({ pods: amount, cpuCores: amount, memoryMb: amount, diskGb: amount });

const quota = z
  .object({
    tenantId: uuid,
    source: z.enum(["default", "tenant"]).openapi({ description: "default: nobody set limits for this tenant." }),
    limits: amounts,
    usage: amounts.openapi({ description: "Pods that are provisioning or active." }),
    version: z.number().int().openapi({ description: "Of the limits; use does not change it." }),
  })
  .openapi("Quota");

const change = z.discriminatedUnion("source", [
  z.strictObject({ source: z.literal("default") }),
  z.strictObject({ source: z.literal("tenant"), limits: z.strictObject(amounts.shape) }),
]);

const tags = ["quotas"];

async function show(ctx: TenantContext) {
  const state = await ctx.inTenant((tx) => readQuota(tx, ctx.tenantId));
  return {
    status: 200 as const,
    headers: { etag: etagOf(state.version) },
    body: quotaView(ctx.tenantId, state),
  };
}

/** Adds the routes of tenants' quotas. */
export function registerQuotaRoutes(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/tenants/:tenant/quota",
    summary: "Limits and use of a tenant",
    tags,
    access: { scope: "READ" },
    responses: { 200: quota },
    handler: async ({ params }, ctx) => {
      if (ctx.tenantId !== params.tenant) throw tenantUnknown();
      return await show(ctx);
    },
  });
  route(routes, {
    method: "get",
    path: "/api/cloud-pods/quota",
    summary: "Limits and use of the tenant that is acted in",
    tags,
    access: { scope: "READ" },
    responses: { 200: quota },
    handler: async (_, ctx) => await show(ctx),
  });
  route(routes, {
    method: "put",
    path: "/api/cloud-pods/tenants/:tenant/quota",
    summary: "Set a tenant's limits, or go back to the default ones",
    tags,
    access: { platform: "ADMINISTRATOR" },
    checksVersion: true,
    request: {
      body: change,
      example: { source: "tenant", limits: { pods: 5, cpuCores: 8, memoryMb: 16_384, diskGb: 100 } },
    },
    responses: { 200: quota },
    handler: async ({ params, body, ifMatch }, ctx) => {
      const state = await ctx.inSystem(async (tx) => {
        await requireTenant(tx, params.tenant);
        const limits = body.source === "default" ? undefined : limitsOf(body.limits);
        const after = await setQuota(tx, params.tenant, limits, ifMatch);
        await recordAudit(tx, {
          actor: ctx.actor,
          requestId: ctx.requestId,
          tenantId: params.tenant,
          action: "quota.set",
          targetType: "tenant",
          targetId: params.tenant,
          detail: { source: after.source, limits: after.limits },
        });
        return after;
      });
      return { status: 200, headers: { etag: etagOf(state.version) }, body: quotaView(params.tenant, state) };
    },
  });
}

function limitsOf(limits: z.output<typeof amounts>): TenantQuota {
  return {
    max_pods: limits.pods,
    max_cpu_cores: limits.cpuCores,
    max_memory_mb: limits.memoryMb,
    max_disk_gb: limits.diskGb,
  };
}

function quotaView(tenantId: string, { version, source, limits, usage }: QuotaState): z.input<typeof quota> {
  return {
    tenantId,
    source,
    limits: {
      pods: limits.max_pods,
      cpuCores: limits.max_cpu_cores,
      memoryMb: limits.max_memory_mb,
      diskGb: limits.max_disk_gb,
    },
    usage,
    version,
  };
}

async function requireTenant(db: Queryable, tenantId: string): Promise<void> {
  const known = await db.query(sql`SELECT FROM tenants WHERE id = ${tenantId}`);
  if (known.length === 0) throw tenantUnknown();
}

function tenantUnknown(): DomainError {
  return new DomainError("not-found", "TENANT_UNKNOWN", "There is no such tenant.");
}
