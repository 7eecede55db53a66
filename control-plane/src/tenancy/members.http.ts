import { z } from "@hono/zod-openapi";
import type { TenantContext } from "../http/context.ts";
import { noBody, timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { tenantRoles } from "../security/scopes.ts";
import { emailField } from "./create-user.ts";
import { addMember, changeMemberRole, listMembers, removeMember, type MemberChange } from "./members.ts";
import { findUserByEmail, userUnknown } from "./user.ts";

const memberView = z
  .object({ userId: uuid, email: z.string(), name: z.string().nullable(), role: z.enum(tenantRoles), since: timestamp })
  .openapi("Member");

const memberWish = z.strictObject({ email: emailField, role: z.enum(tenantRoles) });

const roleWish = memberWish.pick({ role: true });

/** Members of a tenant, for its own. */
export function registerMemberRoutes(routes: RouteTable): void {
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
    method: "put",
    path: "/api/tenants/:tenant/members/:user",
    summary: "Give a member another role; his API tokens stay and act with it",
    tags: ["tenants"],
    access: { scope: "ADMIN" },
    request: { body: roleWish, example: { role: "admin" } },
    responses: { 200: memberView },
    handler: async ({ params, body }, ctx) => ({
      status: 200,
      body: await ctx.inSystem((tx) => changeMemberRole(tx, changeOf(ctx), params.user, body.role)),
    }),
  });
  route(routes, {
    method: "delete",
    path: "/api/tenants/:tenant/members/:user",
    summary: "End a membership and the member's API tokens here",
    tags: ["tenants"],
    access: { scope: "ADMIN" },
    responses: { 204: noBody },
    async handler({ params }, ctx) {
      await ctx.inTenant((tx) => removeMember(tx, changeOf(ctx), params.user));
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
