import { z } from "@hono/zod-openapi";
import type { TenantContext } from "../http/context.ts";
import { timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { createApiToken, listApiTokens, revokeApiToken, type TokenOwner } from "./api-tokens.ts";
import { scopes } from "./scopes.ts";

const tokenView = z
  .object({
    id: uuid,
    userId: uuid,
    name: z.string(),
    prefix: z.string().openapi({ description: "First characters, to tell tokens apart." }),
    scopes: z.array(z.enum(scopes)),
    allowedCidrs: z.array(z.string()),
    expiresAt: timestamp.nullable(),
    lastUsedAt: timestamp.nullable(),
    revokedAt: timestamp.nullable(),
    createdAt: timestamp,
  })
  .openapi("ApiToken");

const tokenWish = z.strictObject({
  name: z.string().trim().min(1).max(100),
  scopes: z.array(z.enum(scopes)).min(1).max(scopes.length),
  allowedCidrs: z
    .array(z.union([z.cidrv4(), z.cidrv6()]))
    .max(50)
    .default([]),
  expiresAt: z.iso
    .datetime({ offset: true })
    .transform((text) => new Date(text))
    .optional()
    .openapi({ type: "string", format: "date-time" }),
});

// A token that leaked must not be able to make, find or end others: all of it needs a session.
const access = { scope: "READ", credential: "session" } as const;

/** API tokens of a user in a tenant. */
export function registerTokenRoutes(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/security/tokens",
    summary: "API tokens: one's own, with SECURITY those of the whole tenant",
    tags: ["security"],
    access,
    request: { query: listQuery },
    responses: { 200: listOf(tokenView) },
    async handler({ query }, ctx) {
      const beforeId = decodeCursor(query.cursor, 1)?.[0];
      const rows = await ctx.inTenant((tx) => listApiTokens(tx, ownerOf(ctx), { limit: query.limit, beforeId }));
      return {
        status: 200,
        body: toIdPage(rows, query.limit, (row) => row),
      };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/security/tokens",
    summary: "Make an API token; its secret is shown only in this answer",
    tags: ["security"],
    access,
    idempotent: { shownOnce: (body: { id: string }) => body.id },
    request: { body: tokenWish, example: { name: "deployment", scopes: ["READ"] } },
    responses: { 201: tokenView.extend({ token: z.string().openapi({ description: "Shown once." }) }) },
    async handler({ body }, ctx) {
      const { token, secret } = await ctx.inTenant((tx) =>
        createApiToken(tx, ownerOf(ctx), { ...body, expiresAt: body.expiresAt }),
      );
      return { status: 201, body: { ...token, token: secret } };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/security/tokens/:id/revoke",
    summary: "End an API token at once",
    tags: ["security"],
    access,
    responses: { 200: tokenView },
    handler: async ({ params }, ctx) => ({
      status: 200,
      body: await ctx.inTenant((tx) => revokeApiToken(tx, ownerOf(ctx), params.id)),
    }),
  });
}

function ownerOf(ctx: TenantContext): TokenOwner {
  const { actor, tenantId, requestId, now, scopes: held } = ctx;
  return { actor, userId: actor.userId, tenantId, requestId, now, scopes: held };
}
