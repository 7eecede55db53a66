import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import type { TenantContext } from "../http/context.ts";
import { noBody, timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage, toPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { sql } from "../platform/sql.ts";
import { platformRoles, tenantRoles } from "../security/scopes.ts";
import { addMember, listMembers, removeMember, type MemberChange } from "./members.ts";
import { createTenant } from "./create-tenant.ts";
import { createUser, emailField, newPasswordField } from "./create-user.ts";
import { tenantColumns, type Tenant } from "./tenant.ts";
import { findUserByEmail, userColumns, type User } from "./user.ts";

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
    createdAt: timestamp,
  })
  .openapi("Tenant");

const userView = z
  .object({
    id: uuid,
    email: z.string(),
    name: z.string().nullable(),
    platformRole: z.enum(platformRoles),
    isActive: z.boolean(),
    createdAt: timestamp,
  })
  .openapi("User");

const memberView = z
  .object({ userId: uuid, email: z.string(), name: z.string().nullable(), role: z.enum(tenantRoles), since: timestamp })
  .openapi("Member");

const tenantWish = z.strictObject({
  slug: z
    .string()
    .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, "must be a label of lower-case letters, digits and dashes"),
  name: z.string().trim().min(1).max(200),
  region: z.string().min(1).max(64).optional(),
  currency: z
    .string()
    .regex(/^[A-Z]{3}$/, "must be an ISO 4217 code")
    .optional(),
  billingEmail: emailField.optional(),
  timezone: z.string().refine(isTimezone, "must be the name of a time zone").optional(),
  ownerEmail: emailField.optional().openapi({ description: "A user who becomes its owner." }),
});

const userWish = z.strictObject({
  email: emailField,
  password: newPasswordField,
  name: z.string().trim().min(1).max(200).optional(),
  platformRole: z.enum(platformRoles).default("USER"),
  emailVerified: z.boolean().optional(),
});

const memberWish = z.strictObject({ email: emailField, role: z.enum(tenantRoles) });

/** Tenants and users (for administrators), members (for the tenant's own). */
export function registerTenancyRoutes(routes: RouteTable): void {
  registerTenants(routes);
  registerUsers(routes);
  registerMembers(routes);
}

function registerTenants(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/tenants",
    summary: "All tenants, newest first",
    tags: ["tenants"],
    access: { platform: "ADMINISTRATOR" },
    request: { query: listQuery },
    responses: { 200: listOf(tenantView) },
    async handler({ query }, ctx) {
      const before = decodeCursor(query.cursor, 1)?.[0] ?? null;
      const rows = await ctx.system.query<Tenant>(sql`
        SELECT ${tenantColumns} FROM tenants WHERE ${before}::uuid IS NULL OR id < ${before}::uuid ORDER BY id DESC LIMIT ${query.limit + 1}`);
      return {
        status: 200,
        body: toIdPage(rows, query.limit, (row) => row),
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

function registerUsers(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/users",
    summary: "All users, newest first",
    tags: ["users"],
    access: { platform: "ADMINISTRATOR" },
    request: { query: listQuery },
    responses: { 200: listOf(userView) },
    async handler({ query }, ctx) {
      const before = decodeCursor(query.cursor, 1)?.[0] ?? null;
      const rows = await ctx.system.query<User>(sql`
        SELECT ${userColumns} FROM users WHERE ${before}::uuid IS NULL OR id < ${before}::uuid ORDER BY id DESC LIMIT ${query.limit + 1}`);
      return {
        status: 200,
        body: toIdPage(rows, query.limit, (row) => row),
      };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/users",
    summary: "Make a user",
    tags: ["users"],
    access: { platform: "ADMINISTRATOR" },
    idempotent: true,
    request: { body: userWish, example: { email: "ada@example.com", password: "correct horse battery" } },
    responses: { 201: userView },
    handler: async ({ body }, ctx) => ({ status: 201, body: await ctx.inSystem((tx) => createUser(tx, body, ctx)) }),
  });
}

function registerMembers(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/tenants/:tenant/members",
    summary: "Members of a tenant",
    tags: ["tenants"],
    access: { scope: "ADMIN" },
    request: { query: listQuery },
    responses: { 200: listOf(memberView) },
    async handler({ query }, ctx) {
      const afterUserId = decodeCursor(query.cursor, 1)?.[0];
      const rows = await listMembers(ctx.system, ctx.tenantId, { limit: query.limit, afterUserId });
      return {
        status: 200,
        body: toPage(
          rows,
          query.limit,
          (row) => [row.userId],
          (row) => row,
        ),
      };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/tenants/:tenant/members",
    summary: "Make a user a member",
    tags: ["tenants"],
    access: { scope: "ADMIN" },
    idempotent: true,
    request: { body: memberWish, example: { email: "ada@example.com", role: "member" } },
    responses: { 201: memberView },
    async handler({ body }, ctx) {
      const user = await findUserByEmail(ctx.system, body.email);
      if (user === undefined) throw userUnknown("/email");
      const since = await ctx.inTenant((tx) => addMember(tx, changeOf(ctx), user.id, body.role));
      return { status: 201, body: { userId: user.id, email: user.email, name: user.name, role: body.role, since } };
    },
  });
  route(routes, {
    method: "delete",
    path: "/api/tenants/:tenant/members/:id",
    summary: "End a membership and the member's API tokens here",
    tags: ["tenants"],
    access: { scope: "ADMIN" },
    responses: { 204: noBody },
    async handler({ params }, ctx) {
      await ctx.inTenant((tx) => removeMember(tx, changeOf(ctx), params.id));
      return { status: 204 };
    },
  });
}

function changeOf(ctx: TenantContext): MemberChange {
  const { actor, requestId, tenantId } = ctx;
  const isOwner = actor.memberships.some(
    (membership) => membership.tenantId === tenantId && membership.role === "owner",
  );
  return { actor, requestId, tenantId, mayChangeOwners: isOwner || actor.platformRole === "ADMINISTRATOR" };
}

function userUnknown(pointer: string): DomainError {
  const detail = "There is no user with this e-mail address.";
  return new DomainError("invalid", "USER_UNKNOWN", detail, { errors: [{ pointer, detail }] });
}

function isTimezone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false; // RangeError: no such zone
  }
}
