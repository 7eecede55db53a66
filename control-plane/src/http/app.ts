import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { Logger } from "pino";
import { Histogram, type Registry } from "prom-client";
import { newId } from "@cloudpods/shared/ids";
import type { Database } from "../platform/database.ts";
import { networksOf } from "../security/authenticate.ts";
import { createCredentialWatch } from "../security/credential-watch.ts";
import { addHealthPages, type ReadinessChecks } from "./health.ts";
import { addReference } from "./reference.ts";
import { HttpRefusal, problemOf } from "./problem.ts";
import { parameterNames, parameterPattern, type Route, type RouteTable } from "./route-table.ts";
import { serveRoute, type Serving } from "./serve-route.ts";
import type { App, RequestVariables } from "./trail.ts";

/** What an app is made of. */
export interface AppOptions {
  readonly routes: RouteTable;
  /** Login that owns the tables. */
  readonly system: Database;
  /** Login of tenants' requests. */
  readonly api: Database;
  readonly log: Logger;
  readonly metrics: Registry;
  readonly readiness: ReadinessChecks;
  readonly version: string;
  /** Default: the time of this machine. */
  readonly clock?: () => Date;
  /** Networks (CIDR) of the proxies whose X-Forwarded-For is believed; default none. */
  readonly trustedProxies?: readonly string[];
  /** Default 30 s. */
  readonly deadlineMs?: number;
  /** Aborted when the process ends: open streams end too. */
  readonly shutdown?: AbortSignal;
}

const bodyBytesMax = 1024 * 1024;

/** Builds the app from its routes. */
export function createApp(options: AppOptions): App {
  // The older spelling of the pods' paths reaches the same handlers.
  const getPath = (request: Request): string =>
    new URL(request.url).pathname.replace(/^\/api\/cloudpods(?=\/|$)/, "/api/cloud-pods");
  const app: App = new Hono<RequestVariables>({ getPath });
  const clock = options.clock ?? (() => new Date());
  const serving: Serving = {
    system: options.system,
    api: options.api,
    clock,
    trustedProxies: networksOf(options.trustedProxies ?? []),
    deadlineMs: options.deadlineMs ?? 30_000,
    credentialWatch: createCredentialWatch(options.system, clock),
    shutdown: options.shutdown ?? new AbortController().signal,
  };
  addRequestLog(app, options);
  app.use(
    bodyLimit({
      maxSize: bodyBytesMax,
      onError: () => {
        throw new HttpRefusal(413, "BODY_TOO_LARGE", `The body is larger than ${bodyBytesMax} bytes.`);
      },
    }),
  );
  addHealthPages(app, options);
  addReference(app, options.routes, options.version);
  addRoutes(app, options.routes.list(), serving);
  app.notFound(() => {
    throw new HttpRefusal(404, "PATH_UNKNOWN", "There is nothing at this path.");
  });
  return app;
}

function addRoutes(app: App, routes: readonly Route[], serving: Serving): void {
  for (const route of routes) {
    app.on(route.method.toUpperCase(), honoPath(route.path), (c) => serveRoute(route, serving, c));
  }
  const methods = Map.groupBy(routes, (route) => honoPath(route.path));
  for (const [path, sharing] of methods) {
    const allow = sharing.map((route) => route.method.toUpperCase()).join(", ");
    app.all(path, () => {
      throw new HttpRefusal(405, "METHOD_NOT_ALLOWED", `This path allows ${allow}.`, { allow });
    });
  }
}

/** A path with the patterns of its parameters in Hono's form. */
function honoPath(path: string): string {
  return parameterNames(path).reduce((result, name) => {
    const pattern = parameterPattern(name);
    return pattern === undefined ? result : result.replace(`:${name}`, `:${name}{(?:${pattern})}`);
  }, path);
}

function addRequestLog(app: App, options: AppOptions): void {
  const duration = new Histogram({
    name: "cloudpods_http_request_duration_seconds",
    help: "Time until the answer's head, by route.",
    labelNames: ["route", "status"],
    buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: [options.metrics],
  });
  app.use(async (c, next) => {
    const startedMs = performance.now();
    const given = c.req.header("x-request-id");
    const requestId = given !== undefined && /^[\w.-]{8,64}$/.test(given) ? given : newId();
    const trail = {
      requestId,
      log: options.log.child({ requestId }),
      route: undefined,
      actor: undefined,
      tenantId: undefined,
      taskId: undefined,
    };
    c.set("trail", trail);
    await next();
    c.res.headers.set("x-request-id", requestId);
    setSecureHeaders(c.res.headers);
    const durationMs = performance.now() - startedMs;
    const { route, actor, tenantId, taskId } = c.var.trail;
    duration.observe({ route: route ?? "other", status: c.res.status }, durationMs / 1_000);
    const line = {
      method: c.req.method,
      path: c.req.path,
      route,
      status: c.res.status,
      durationMs: Math.round(durationMs),
      actor,
      tenantId,
      taskId,
    };
    trail.log[route === undefined ? "debug" : "info"](line, "request");
  });
  app.onError((error, c) => {
    const { requestId, log } = c.var.trail;
    const { problem, headers } = problemOf(error, requestId);
    if (problem.status === 500) log.error({ err: error }, "request failed");
    else if (problem.status === 503) log.warn({ err: error, code: problem.error }, "request refused");
    return new Response(JSON.stringify(problem), {
      status: problem.status,
      headers: { ...headers, "content-type": "application/problem+json", "cache-control": "no-store" },
    });
  });
}

/** For answers that are data; pages set their own Content-Security-Policy before. */
function setSecureHeaders(headers: Headers): void {
  if (!headers.has("content-security-policy"))
    headers.set("content-security-policy", "default-src 'none'; frame-ancestors 'none'");
  headers.set("x-content-type-options", "nosniff");
  headers.set("x-frame-options", "DENY");
  headers.set("referrer-policy", "no-referrer");
  headers.set("cross-origin-resource-policy", "same-origin");
  headers.set("strict-transport-security", "max-age=31536000");
}
