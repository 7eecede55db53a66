import type { Logger } from "pino";
import type { Registry } from "prom-client";
import { createApp } from "../../control-plane/src/http/app.ts";
import { createRouteTable, type RouteTable } from "../../control-plane/src/http/route-table.ts";
import type { App } from "../../control-plane/src/http/trail.ts";
import type { ReadinessChecks } from "../../control-plane/src/http/health.ts";
import { createLog } from "../../control-plane/src/platform/log.ts";
import { createMetrics } from "../../control-plane/src/platform/metrics.ts";
import { registerSecurityRoutes } from "../../control-plane/src/security/security.http.ts";
import { registerTenancyRoutes } from "../../control-plane/src/tenancy/tenancy.http.ts";
import type { TestDatabase } from "./postgres.ts";

/** The app over a test's database, and its routes. */
export interface TestApp {
  readonly app: App;
  readonly routes: RouteTable;
}

/** What a test may want otherwise. */
export interface TestAppOptions {
  /** Adds routes of the test's own; default: all routes of the control plane. */
  readonly register?: (routes: RouteTable) => void;
  readonly clock?: () => Date;
  readonly deadlineMs?: number;
  readonly shutdown?: AbortSignal;
  /** Default: silent. */
  readonly log?: Logger;
  readonly readiness?: ReadinessChecks;
  /** Default: one of its own. */
  readonly metrics?: Registry;
}

/** Builds the app as the composition does, without a port: call it with `app.request`. */
export function buildTestApp(db: Pick<TestDatabase, "system" | "api">, options: TestAppOptions = {}): TestApp {
  const { register = registerAllRoutes, ...rest } = options;
  const routes = createRouteTable();
  register(routes);
  const app = createApp({
    routes,
    system: db.system,
    api: db.api,
    log: createLog({ level: "silent" }),
    metrics: createMetrics(),
    readiness: {},
    version: "0.0.0-test",
    trustedProxies: ["10.0.0.0/8"],
    ...rest,
  });
  return { app, routes };
}

/** Every route of the control plane. */
function registerAllRoutes(routes: RouteTable): void {
  registerSecurityRoutes(routes, { secureCookies: true });
  registerTenancyRoutes(routes);
}
