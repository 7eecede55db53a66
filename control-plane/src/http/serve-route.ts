import type { Context } from "hono";
import { timingSafeEqual } from "node:crypto";
import type { BlockList } from "node:net";
import { DomainError } from "../../../shared/src/errors.ts";
import type { Database, Transaction } from "../platform/database.ts";
import { recordAudit } from "../security/audit.ts";
import { authenticate } from "../security/authenticate.ts";
import {
  chooseTenant,
  ownerOfResource,
  requirePlatformRole,
  requireScope,
  requireSession,
} from "../security/authorise.ts";
import type { CredentialWatch } from "../security/credential-watch.ts";
import { sha256Of } from "../security/secret-token.ts";
import type { Caller } from "../security/actor.ts";
import { clientAddress } from "./client-address.ts";
import type { PublicContext, TenantContext } from "./context.ts";
import {
  claimKey,
  fingerprintOf,
  noTenantId,
  parseIdempotencyKey,
  storeAnswer,
  type StoredAnswer,
} from "./idempotency.ts";
import { bigintAsText, readRequest, type ReadRequest } from "./read-request.ts";
import type { Answer, Route } from "./route-table.ts";
import { csrfHeader, readCookie, sessionCookie } from "./session-cookie.ts";
import { sendEvents } from "./send-events.ts";
import type { RequestVariables } from "./trail.ts";

/** What serving needs besides the route. */
export interface Serving {
  readonly system: Database;
  readonly api: Database;
  readonly clock: () => Date;
  readonly trustedProxies: BlockList;
  readonly deadlineMs: number;
  readonly credentialWatch: CredentialWatch;
  /** Aborted when the process ends: open streams end too. */
  readonly shutdown: AbortSignal;
}

type RequestOf = Context<RequestVariables>;

/** Answers one request of a route: who, may he, valid, do it, answer. */
export async function serveRoute(route: Route, serving: Serving, c: RequestOf): Promise<Response> {
  c.var.trail.route = `${route.method.toUpperCase()} ${route.path}`;
  const deadline = AbortSignal.timeout(serving.deadlineMs);
  const base = publicContext(serving, c, deadline);
  const ctx = await admit(route, serving, c, base);
  const request = await readRequest(route, c);
  const answer = await beforeDeadline(deadline, run(route, serving, c, request, ctx));
  return "events" in answer
    ? sendEvents(answer.events, {
        watch: serving.credentialWatch,
        credential: ctx.actor.credential,
        shutdown: serving.shutdown,
        lastEventId: c.req.header("last-event-id"),
      })
    : toResponse(answer);
}

/** The context of a request before its transaction is decided. */
type Admitted = Omit<TenantContext, "inTenant" | "inSystem" | "afterCommit">;
type Base = Omit<PublicContext, "inSystem" | "afterCommit">;

function publicContext(serving: Serving, c: RequestOf, signal: AbortSignal): Base {
  const { requestId, log } = c.var.trail;
  const peer = c.env?.incoming?.socket?.remoteAddress;
  const address = clientAddress(peer, c.req.header("x-forwarded-for"), serving.trustedProxies);
  return {
    requestId,
    now: serving.clock(),
    address,
    userAgent: c.req.header("user-agent")?.slice(0, 300),
    signal,
    log,
    system: serving.system,
  };
}

/** Lets the caller in as the route's access says; a public route has neither actor nor tenant. */
async function admit(route: Route, serving: Serving, c: RequestOf, base: Base): Promise<Admitted> {
  // The typed door `route` gives handlers of public routes no actor, and others no tenant, to read.
  if (route.access === "public") return base as Admitted;
  const actor = await authenticateRequest(serving, c, base);
  c.var.trail.actor = `${actor.kind}:${actor.id}`;
  const changes = route.method !== "get";
  if ("session" in route.access) {
    requireSession(actor);
    return { ...base, actor } as Admitted;
  }
  if ("platform" in route.access) {
    requirePlatformRole(actor, route.access.platform, changes);
    return { ...base, actor } as Admitted;
  }
  if (route.access.credential === "session") requireSession(actor);
  const { tenantId, scopes, asOperator } = await chooseTenant(serving.system, actor, {
    named: c.req.header("x-tenant-id"),
    ownerOfResource: () => ownerOfResource(serving.system, c.req.param()),
  });
  c.var.trail.tenantId = tenantId;
  requireScope(scopes, route.access.scope);
  if (asOperator) await auditVisit(serving, route, actor, tenantId, base.requestId);
  return { ...base, actor, tenantId, scopes };
}

async function authenticateRequest(serving: Serving, c: RequestOf, base: Base): Promise<Caller> {
  const bearer = /^Bearer +(\S+)$/i.exec(c.req.header("authorization") ?? "")?.[1];
  const cookie = readCookie(c.req.header("cookie"), sessionCookie);
  const secret = bearer ?? cookie;
  if (secret === undefined) {
    throw new DomainError(
      "unauthenticated",
      "CREDENTIAL_MISSING",
      "Send a session or API token in the Authorization header.",
    );
  }
  const { caller, csrfSha256 } = await authenticate(serving.system, secret, base.address, base.now);
  const isSafe = c.req.method === "GET" || c.req.method === "HEAD";
  if (bearer === undefined && !isSafe && !isCsrfToken(c.req.header(csrfHeader), csrfSha256)) {
    throw new DomainError(
      "forbidden",
      "CSRF_TOKEN_INVALID",
      `A change with the session cookie needs its CSRF token in ${csrfHeader}.`,
    );
  }
  return caller;
}

function isCsrfToken(shown: string | undefined, sha256: Buffer | undefined): boolean {
  return shown !== undefined && sha256 !== undefined && timingSafeEqual(sha256Of(shown), sha256);
}

/** An operator in a customer's tenant leaves a trace there, whatever he does. */
async function auditVisit(
  serving: Serving,
  route: Route,
  actor: Caller,
  tenantId: string,
  requestId: string,
): Promise<void> {
  const detail = { route: `${route.method.toUpperCase()} ${route.path}` };
  await recordAudit(serving.system, {
    actor,
    requestId,
    tenantId,
    action: "tenant.visit",
    targetType: "tenant",
    targetId: tenantId,
    detail,
  });
}

type Outcome = StoredAnswer | { readonly events: NonNullable<Answer["events"]> };

async function run(
  route: Route,
  serving: Serving,
  c: RequestOf,
  request: ReadRequest,
  ctx: Admitted,
): Promise<Outcome> {
  const afterCommit: (() => void)[] = [];
  const onCommit = { afterCommit: (work: () => void) => void afterCommit.push(work) };
  const outcome =
    route.idempotent !== undefined && !isDryRun(request.valid.query)
      ? await runOnce(route, serving, c, request, { ...ctx, ...onCommit }, () => afterCommit.splice(0))
      : await runPlainly(route, serving, request, { ...ctx, ...onCommit });
  for (const work of afterCommit) work();
  return outcome;
}

function isDryRun(query: unknown): boolean {
  return typeof query === "object" && query !== null && "dryRun" in query && query.dryRun === true;
}

type WithCommit = Admitted & Pick<PublicContext, "afterCommit">;

async function runPlainly(route: Route, serving: Serving, request: ReadRequest, ctx: WithCommit): Promise<Outcome> {
  const answer = await route.handler(request.valid, {
    ...ctx,
    inSystem: (work) => serving.system.transaction(work),
    inTenant: (work) => serving.api.transaction(work, { tenantId: ctx.tenantId }),
  });
  return answer.events === undefined ? render(route, answer) : { events: answer.events };
}

/** One transaction around key, effect and answer: all three commit or none. */
async function runOnce(
  route: Route,
  serving: Serving,
  c: RequestOf,
  request: ReadRequest,
  ctx: WithCommit,
  forgetEarlierAttempt: () => void,
): Promise<StoredAnswer> {
  const key = parseIdempotencyKey(c.req.header("idempotency-key"));
  const inTenantRoute = ctx.tenantId !== undefined;
  const claim =
    key === undefined
      ? undefined
      : {
          tenantId: ctx.tenantId ?? noTenantId,
          principal: ctx.actor === undefined ? "public" : `${ctx.actor.kind}:${ctx.actor.id}`,
          route: `${route.method} ${route.path}`,
          key,
          bodySha256: fingerprintOf(request.json),
        };
  const work = async (tx: Transaction): Promise<StoredAnswer> => {
    forgetEarlierAttempt();
    const replayed = claim === undefined ? undefined : await claimKey(tx, claim);
    if (replayed !== undefined)
      return { ...replayed, headers: { ...replayed.headers, "idempotency-replayed": "true" } };
    const join = <T>(inside: (tx: Transaction) => Promise<T>): Promise<T> => inside(tx);
    const answer = await route.handler(request.valid, {
      ...ctx,
      inTenant: join,
      inSystem: inTenantRoute ? (inside) => serving.system.transaction(inside) : join,
    });
    const rendered = render(route, answer);
    if (claim !== undefined) await storeAnswer(tx, claim, rendered, unreplayableId(route, answer));
    ctx.signal.throwIfAborted();
    return rendered;
  };
  return inTenantRoute
    ? await serving.api.transaction(work, { tenantId: ctx.tenantId })
    : await serving.system.transaction(work);
}

function unreplayableId(route: Route, answer: Answer): string | undefined {
  return typeof route.idempotent === "object" ? route.idempotent.shownOnce(answer.body) : undefined;
}

/** The answer as text. Its schema strips what was not declared, so no column gets out by accident. */
function render(route: Route, answer: Answer): StoredAnswer {
  const schema = route.responses[answer.status];
  if (schema === undefined)
    throw new Error(`${route.method} ${route.path} answered with ${answer.status}, which it does not declare`);
  const body: unknown = schema.parse(answer.body);
  return {
    status: answer.status,
    text: body === undefined ? undefined : JSON.stringify(body, bigintAsText),
    headers: answer.headers ?? {},
  };
}

function toResponse(answer: StoredAnswer): Response {
  const headers = new Headers(answer.headers);
  if (answer.text !== undefined) headers.set("content-type", "application/json");
  headers.set("cache-control", "no-store");
  return new Response(answer.text ?? null, { status: answer.status, headers });
}

/** The work goes on after its deadline, but cannot commit any more where it is one transaction. */
async function beforeDeadline<T>(deadline: AbortSignal, work: Promise<T>): Promise<T> {
  const passed = Promise.withResolvers<never>();
  const refuse = (): void =>
    passed.reject(
      new DomainError("unavailable", "DEADLINE_EXCEEDED", "The request took too long and was given up.", {
        retryAfterSeconds: 5,
      }),
    );
  deadline.addEventListener("abort", refuse, { once: true });
  try {
    return await Promise.race([work, passed.promise]);
  } finally {
    deadline.removeEventListener("abort", refuse);
  }
}
