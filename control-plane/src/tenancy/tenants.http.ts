import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { sql } from "../platform/sql.ts";
import { requirePlatformRole } from "../security/authorise.ts";
import { includesPlatformRole } from "../security/scopes.ts";
import { changeTenant } from "./change-tenant.ts";
import { createTenant } from "./create-tenant.ts";
import { emailField } from "./create-user.ts";
import { tenantColumns, type Tenant } from "./tenant.ts";
import { findUserByEmail, userUnknown } from "./user.ts";

const tenantView = z
  .object({
    id: uuid,
    slug: z.string(),
    name: z.string(),
    status: z.enum(["active", "suspended", "closed"]),
    region: z.string().nullable(),
    currency: z.string(),
    billingEmail: z.string().nullable(),
    timezone: z.string(),
    pricingName: z.string().nullable().openapi({ description: "The price list; null: the default of the currency." }),
    createdAt: timestamp,
  })
  .openapi("Tenant");

/** Who may act for a tenant must find it; what it pays and where its bills go is the administrators'. */
const listedTenant = tenantView
  .partial()
  .required({ id: true, slug: true, name: true, status: true })
  .openapi("ListedTenant", { description: "Operators see id, slug, name and status; administrators all of it." });

const settings = {
  name: z.string().trim().min(1).max(200),
  region: z.string().min(1).max(64),
  billingEmail: emailField,
  timezone: z.string().refine(isTimezone, "must be the name of a time zone"),
};

const tenantWish = z.strictObject({
  slug: z
    .string()
    .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, "must be a label of lower-case letters, digits and dashes"),
  name: settings.name,
  region: settings.region.optional(),
  currency: z
    .string()
    .regex(/^[A-Z]{3}$/, "must be an ISO 4217 code")
    .optional(),
  billingEmail: settings.billingEmail.optional(),
  timezone: settings.timezone.optional(),
  ownerEmail: emailField.optional().openapi({ description: "A user who becomes its owner." }),
});

const tenantChange = z
  .strictObject({
    name: settings.name.optional(),
    region: settings.region.nullable().optional().openapi({ description: "Null: the platform's default." }),
    billingEmail: settings.billingEmail.nullable().optional(),
    timezone: settings.timezone.optional(),
    pricingName: z.string().max(63).nullable().optional().openapi({
      description:
        "For administrators. The price list that usage is paid by from now on; null: the currency's default.",
    }),
    status: z
      .enum(["active", "suspended", "closed"])
      .optional()
      .openapi({ description: "For administrators, with a reason. A tenant with pods cannot be closed." }),
    reason: z.string().trim().min(1).max(500).optional().openapi({ description: "Why the status changes." }),
  })
  .refine((body) => (body.status === undefined) === (body.reason === undefined), {
    path: ["reason"],
    message: "goes with a status, and a status with it",
  });

/** Tenants: making and closing them is the administrator's, their settings are their own. */
export function registerTenantRoutes(routes: RouteTable): void {
  registerAllTenants(routes);
  registerOneTenant(routes);
}

function registerAllTenants(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/tenants",
    summary: "All tenants, newest first; for operators by name only",
    tags: ["tenants"],
    access: { platform: "OPERATOR" },
    request: { query: listQuery },
    responses: { 200: listOf(listedTenant) },
    async handler({ query }, ctx) {
      const before = decodeCursor(query.cursor, 1)?.[0] ?? null;
      const seesAll = includesPlatformRole(ctx.actor.platformRole, "ADMINISTRATOR");
      const rows = await ctx.system.query<Tenant>(sql`
        SELECT ${tenantColumns} FROM tenants WHERE ${before}::uuid IS NULL OR id < ${before}::uuid ORDER BY id DESC LIMIT ${query.limit + 1}`);
      return {
        status: 200,
        body: toIdPage(rows, query.limit, (row) => (seesAll ? row : named(row))),
      };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/tenants",
    summary: "Make a tenant",
    tags: ["tenants"],
    access: { platform: "ADMINISTRATOR" },
    idempotent: true,
    request: { body: tenantWish, example: { slug: "acme", name: "Acme Ltd", currency: "USD" } },
    responses: { 201: tenantView },
    async handler({ body }, ctx) {
      const { ownerEmail, ...wish } = body;
      const tenant = await ctx.inSystem(async (tx) => {
        const owner = ownerEmail === undefined ? undefined : await findUserByEmail(tx, ownerEmail);
        if (ownerEmail !== undefined && owner === undefined) throw userUnknown("/ownerEmail");
        return await createTenant(tx, { ...wish, ownerId: owner?.id }, ctx);
      });
      return { status: 201, body: tenant };
    },
  });
}

function registerOneTenant(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/tenants/:tenant",
    summary: "A tenant and its settings",
    tags: ["tenants"],
    access: { scope: "READ" },
    responses: { 200: tenantView },
    async handler(_request, ctx) {
      const [tenant] = await ctx.inTenant((tx) =>
        tx.query<Tenant>(sql`SELECT ${tenantColumns} FROM tenants WHERE id = ${ctx.tenantId}`),
      );
      if (tenant === undefined) throw new Error("the tenant that a request acts in is not there");
      return { status: 200, body: tenant };
    },
  });
  route(routes, {
    method: "put",
    path: "/api/tenants/:tenant",
    summary: "Change a tenant's settings, or as administrator its status and price list; what is left out stays",
    tags: ["tenants"],
    access: { scope: "ADMIN" },
    request: { body: tenantChange, example: { billingEmail: "invoices@example.com" } },
    responses: { 200: tenantView },
    async handler({ body }, ctx) {
      if (body.status !== undefined || body.pricingName !== undefined)
        requirePlatformRole(ctx.actor, "ADMINISTRATOR", true);
      // The tenants' login cannot write tenants: a status is not the tenant's to set, nor what he pays.
      return { status: 200, body: await ctx.inSystem((tx) => changeTenant(tx, ctx.tenantId, body, ctx)) };
    },
  });
}

function named({ id, slug, name, status }: Tenant) {
  return { id, slug, name, status };
}

function isTimezone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false; // RangeError: no such zone
  }
}
