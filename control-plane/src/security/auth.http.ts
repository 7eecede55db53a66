import { z } from "@hono/zod-openapi";
import type { UserContext } from "../http/context.ts";
import { noBody, timestamp, uuid } from "../http/fields.ts";
import { decodeCursor, listOf, listQuery, toIdPage } from "../http/list-page.ts";
import type { RouteTable } from "../http/route-table.ts";
import { route } from "../http/route.ts";
import { sessionCookies } from "../http/session-cookie.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { passwordLength } from "./password.ts";
import { platformRoles, tenantRoles, type PlatformRole, type TenantRole } from "./scopes.ts";
import {
  changePassword,
  revokeOtherSessions,
  revokeSession,
  rotateSession,
  signIn,
  type NewSession,
} from "./sessions.ts";

/** What the routes of sign-in need. */
export interface AuthRoutesOptions {
  /** Secure flag of the cookies: off only where the site is served over plain HTTP. */
  readonly secureCookies: boolean;
}

const tenantOfUser = z.object({ id: uuid, slug: z.string(), name: z.string(), role: z.enum(tenantRoles) });

const profileView = z
  .object({
    id: uuid,
    email: z.string(),
    name: z.string().nullable(),
    platformRole: z.enum(platformRoles),
    tenants: z.array(tenantOfUser),
  })
  .openapi("Profile");

const newSessionView = z
  .object({
    token: z.string().openapi({ description: "Shown once. Send it as a Bearer token." }),
    csrfToken: z
      .string()
      .openapi({ description: "Shown once. Changes with the session cookie need it in X-CSRF-Token." }),
    sessionId: uuid,
    idleExpiresAt: timestamp,
    expiresAt: timestamp,
  })
  .openapi("NewSession");

const sessionView = z
  .object({
    id: uuid,
    current: z.boolean(),
    userAgent: z.string().nullable(),
    address: z.string().nullable(),
    createdAt: timestamp,
    lastUsedAt: timestamp,
    expiresAt: timestamp,
  })
  .openapi("Session");

// Not the form of a new password: rules may change, and what was set before must still open.
const passwordField = z.string().min(1).max(passwordLength.max).openapi({ format: "password" });

/** Sign-in, sign-out and what a user sees and ends of his own sessions. */
export function registerAuthRoutes(routes: RouteTable, options: AuthRoutesOptions): void {
  registerSignIn(routes, options);
  registerSessionChanges(routes, options);
  registerOwnSessions(routes);
}

function registerSignIn(routes: RouteTable, { secureCookies }: AuthRoutesOptions): void {
  route(routes, {
    method: "post",
    path: "/api/auth/login",
    summary: "Sign in with e-mail address and password",
    tags: ["auth"],
    access: "public",
    request: {
      body: z.strictObject({ email: z.string().min(3).max(254), password: passwordField }),
      example: { email: "ada@example.com", password: "correct horse battery" },
    },
    responses: { 200: newSessionView.extend({ user: profileView }) },
    async handler({ body }, ctx) {
      const session = await signIn(ctx.system, body, ctx);
      const user = await profileOf(ctx.system, session.userId);
      return {
        status: 200,
        headers: { "set-cookie": sessionCookies(session, secureCookies) },
        body: { ...presented(session), user },
      };
    },
  });
}

function registerSessionChanges(routes: RouteTable, { secureCookies }: AuthRoutesOptions): void {
  route(routes, {
    method: "post",
    path: "/api/auth/logout",
    summary: "End this session",
    tags: ["auth"],
    access: { session: true },
    responses: { 204: noBody },
    async handler(_request, ctx) {
      await ctx.inSystem((tx) => revokeSession(tx, ctx.actor.userId, ctx.actor.credential.id, ctx));
      return { status: 204, headers: { "set-cookie": sessionCookies(undefined, secureCookies) } };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/auth/refresh",
    summary: "Exchange this session's secrets for new ones",
    tags: ["auth"],
    access: { session: true },
    responses: { 200: newSessionView },
    async handler(_request, ctx) {
      const session = await ctx.inSystem((tx) => rotateSession(tx, ctx.actor.credential.id, ctx));
      return {
        status: 200,
        headers: { "set-cookie": sessionCookies(session, secureCookies) },
        body: presented(session),
      };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/auth/password",
    summary: "Change the password and end all other sessions",
    tags: ["auth"],
    access: { session: true },
    request: {
      body: z.strictObject({ currentPassword: passwordField, newPassword: passwordField.min(passwordLength.min) }),
      example: { currentPassword: "correct horse battery", newPassword: "staple correct horse" },
    },
    responses: { 200: z.object({ revokedSessions: z.int() }) },
    async handler({ body }, ctx) {
      const caller = { userId: ctx.actor.userId, email: ctx.actor.email, sessionId: ctx.actor.credential.id };
      const passwords = { current: body.currentPassword, next: body.newPassword };
      return { status: 200, body: { revokedSessions: await changePassword(ctx.system, caller, passwords, ctx) } };
    },
  });
}

interface SessionRow {
  readonly id: string;
  readonly userAgent: string | null;
  readonly address: string | null;
  readonly createdAt: Date;
  readonly lastUsedAt: Date;
  readonly expiresAt: Date;
}

function registerOwnSessions(routes: RouteTable): void {
  route(routes, {
    method: "get",
    path: "/api/security/me/profile",
    summary: "Who is signed in, and his tenants",
    tags: ["security"],
    access: { session: true },
    responses: { 200: profileView },
    handler: async (_request, ctx) => ({ status: 200, body: await profileOf(ctx.system, ctx.actor.userId) }),
  });
  route(routes, {
    method: "get",
    path: "/api/security/me/sessions",
    summary: "One's own open sessions, newest first",
    tags: ["security"],
    access: { session: true },
    request: { query: listQuery },
    responses: { 200: listOf(sessionView) },
    async handler({ query }, ctx) {
      const rows = await openSessions(ctx, query.limit, decodeCursor(query.cursor, 1)?.[0]);
      const currentId = ctx.actor.credential.id;
      return { status: 200, body: toIdPage(rows, query.limit, (row) => ({ ...row, current: row.id === currentId })) };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/security/me/sessions/:id/revoke",
    summary: "End one of one's own sessions",
    tags: ["security"],
    access: { session: true },
    responses: { 204: noBody },
    async handler({ params }, ctx) {
      await ctx.inSystem((tx) => revokeSession(tx, ctx.actor.userId, params.id, ctx));
      return { status: 204 };
    },
  });
  route(routes, {
    method: "post",
    path: "/api/security/me/sessions/revoke-all",
    summary: "End all one's own sessions but this",
    tags: ["security"],
    access: { session: true },
    responses: { 200: z.object({ revokedSessions: z.int() }) },
    async handler(_request, ctx) {
      const revokedSessions = await ctx.inSystem((tx) =>
        revokeOtherSessions(tx, ctx.actor.userId, ctx.actor.credential.id, ctx),
      );
      return { status: 200, body: { revokedSessions } };
    },
  });
}

function presented(session: NewSession) {
  const { token, csrfToken, sessionId, idleExpiresAt, expiresAt } = session;
  return { token, csrfToken, sessionId, idleExpiresAt, expiresAt };
}

async function openSessions(ctx: UserContext, limit: number, beforeId: string | undefined): Promise<SessionRow[]> {
  return await ctx.system.query<SessionRow>(sql`
    SELECT id, user_agent AS "userAgent", ip AS address, created_at AS "createdAt", last_used_at AS "lastUsedAt",
           least(expires_at, idle_expires_at) AS "expiresAt"
      FROM sessions WHERE user_id = ${ctx.actor.userId} AND revoked_at IS NULL AND least(expires_at, idle_expires_at) > ${ctx.now}
       AND (${beforeId ?? null}::uuid IS NULL OR id < ${beforeId ?? null}::uuid)
     ORDER BY id DESC LIMIT ${limit + 1}`);
}

interface ProfileRow {
  readonly id: string;
  readonly email: string;
  readonly name: string | null;
  readonly platformRole: PlatformRole;
  readonly tenants: { id: string; slug: string; name: string; role: TenantRole }[];
}

async function profileOf(system: Queryable, userId: string): Promise<ProfileRow> {
  const [row] = await system.query<ProfileRow>(sql`
    SELECT u.id, u.email, u.name, u.platform_role AS "platformRole",
           coalesce((SELECT jsonb_agg(jsonb_build_object('id', t.id, 'slug', t.slug, 'name', t.name, 'role', m.role) ORDER BY t.slug)
                       FROM memberships m JOIN tenants t ON t.id = m.tenant_id
                      WHERE m.user_id = u.id AND t.status <> 'closed'), '[]') AS tenants
      FROM users u WHERE u.id = ${userId}`);
  if (row === undefined) throw new Error("the user of an open session is not there");
  return row;
}
