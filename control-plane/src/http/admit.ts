import type { Context } from "hono";
import { timingSafeEqual } from "node:crypto";
import type { BlockList } from "node:net";
import { DomainError } from "@cloudpods/shared/errors";
import type { Database } from "../platform/database.ts";
import type { Caller } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { authenticate } from "../security/authenticate.ts";
import {
  chooseTenant,
  ownerOfResource,
  requirePlatformRole,
  requireScope,
  requireSession,
  type ActingIn,
} from "../security/authorise.ts";
import type { Scope } from "../security/scopes.ts";
import { sha256Of } from "../security/secret-token.ts";
import { clientAddress } from "./client-address.ts";
import type { PublicContext } from "./context.ts";
import type { Route } from "./route-table.ts";
import { csrfHeader, readCookie, sessionCookie } from "./session-cookie.ts";
import type { RequestVariables } from "./trail.ts";

/** What letting a caller in needs besides his request. */
export interface Admission {
  readonly system: Database;
  readonly clock: () => Date;
  readonly trustedProxies: BlockList;
}

/** A request that was let in: what its handler is told, before its transaction is decided. */
export interface Admitted extends Omit<PublicContext, "inSystem" | "afterCommit"> {
  /** Undefined in public routes. */
  readonly actor: Caller | undefined;
  /** Undefined in routes that act in no tenant. */
  readonly tenant: ActingIn | undefined;
}

/**
 * Lets the caller in as the route's access says.
 * @throws DomainError `unauthenticated`, `forbidden`, or `not-found` where even the refusal would tell too much.
 */
export async function admit(
  route: Route,
  admission: Admission,
  c: Context<RequestVariables>,
  signal: AbortSignal,
): Promise<Admitted> {
  const { requestId, log } = c.var.trail;
  const peer = c.env?.incoming?.socket?.remoteAddress;
  const request = {
    requestId,
    now: admission.clock(),
    address: clientAddress(peer, c.req.header("x-forwarded-for"), admission.trustedProxies),
    userAgent: c.req.header("user-agent")?.slice(0, 300),
    signal,
    log,
    system: admission.system,
  };
  const { access } = route;
  if (access === "public") return { ...request, actor: undefined, tenant: undefined };
  const actor = await authenticateRequest(admission, c, request);
  c.var.trail.actor = `${actor.kind}:${actor.id}`;
  if ("session" in access || ("scope" in access && access.credential === "session")) requireSession(actor);
  if ("platform" in access) requirePlatformRole(actor, access.platform, route.method !== "get");
  const tenant = "scope" in access ? await admitToTenant(route, access.scope, admission, c, actor) : undefined;
  return { ...request, actor, tenant };
}

async function authenticateRequest(
  admission: Admission,
  c: Context<RequestVariables>,
  request: { readonly address: string | undefined; readonly now: Date },
): Promise<Caller> {
  const bearer = /^Bearer +(\S+)$/i.exec(c.req.header("authorization") ?? "")?.[1];
  const secret = bearer ?? readCookie(c.req.header("cookie"), sessionCookie);
  if (secret === undefined) {
    throw new DomainError(
      "unauthenticated",
      "CREDENTIAL_MISSING",
      "Send a session or API token in the Authorization header.",
    );
  }
  const { caller, csrfSha256 } = await authenticate(admission.system, secret, request.address, request.now);
  const isSafe = c.req.method === "GET" || c.req.method === "HEAD";
  // A browser adds the cookie to requests that other sites make; it adds no Authorization header.
  if (bearer === undefined && !isSafe && !isCsrfToken(c.req.header(csrfHeader), csrfSha256)) {
    const needed = `A change with the session cookie needs its CSRF token in ${csrfHeader}.`;
    throw new DomainError("forbidden", "CSRF_TOKEN_INVALID", needed);
  }
  return caller;
}

function isCsrfToken(shown: string | undefined, sha256: Buffer | undefined): boolean {
  return shown !== undefined && sha256 !== undefined && timingSafeEqual(sha256Of(shown), sha256);
}

async function admitToTenant(
  route: Route,
  scope: Scope,
  admission: Admission,
  c: Context<RequestVariables>,
  actor: Caller,
) {
  const params: Readonly<Record<string, string>> = c.req.param();
  const { tenantId, scopes, asOperator } = await chooseTenant(admission.system, actor, {
    named: params["tenant"] ?? c.req.header("x-tenant-id"),
    ownerOfResource: () => ownerOfResource(admission.system, params),
  });
  c.var.trail.tenantId = tenantId;
  requireScope(scopes, scope);
  // An operator in a customer's tenant leaves a trace there, whatever he does.
  if (asOperator) {
    await recordAudit(admission.system, {
      actor,
      requestId: c.var.trail.requestId,
      tenantId,
      action: "tenant.visit",
      targetType: "tenant",
      targetId: tenantId,
      detail: { route: `${route.method.toUpperCase()} ${route.path}` },
    });
  }
  return { tenantId, scopes, asOperator };
}
