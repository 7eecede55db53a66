import { z } from "@hono/zod-openapi";
import { timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { sql } from "../platform/sql.ts";
import { platformRoles } from "../security/scopes.ts";
import { changeUser } from "./change-user.ts";
import { createUser, emailField, newPasswordField } from "./create-user.ts";
import { userColumns, type User } from "./user.ts";

const userView = z
  .object({
    id: uuid,
    email: z.string(),
    name: z.string().nullable(),
    platformRole: z.enum(platformRoles),
    isActive: z.boolean(),
    emailVerified: z.boolean(),
    createdAt: timestamp,
  })
  .openapi("User");

const userWish = z.strictObject({
  email: emailField,
  password: newPasswordField,
  name: z.string().trim().min(1).max(200).optional(),
  platformRole: z.enum(platformRoles).default("USER"),
  emailVerified: z.boolean().optional(),
});

const userChange = z.strictObject({
  isActive: z.boolean().optional().openapi({ description: "False ends his sessions and API tokens at once." }),
  platformRole: z.enum(platformRoles).optional(),
  emailVerified: z.boolean().optional().openapi({ description: "Whether you vouch that the address is his." }),
});

/** Users, for administrators. */
export function registerUserRoutes(routes: RouteTable): void {
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
  route(routes, {
    method: "put",
    path: "/api/users/:user",
    summary: "Switch a user off or on, change his platform role, vouch for his address; what is left out stays",
    tags: ["users"],
    access: { platform: "ADMINISTRATOR" },
    request: { body: userChange, example: { isActive: false } },
    responses: { 200: userView },
    handler: async ({ params, body }, ctx) => ({
      status: 200,
      body: await ctx.inSystem((tx) => changeUser(tx, params.user, body, ctx)),
    }),
  });
}
