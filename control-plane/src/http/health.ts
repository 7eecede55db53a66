import { Hono } from "hono";
import type { Registry } from "prom-client";
import type { Database } from "../platform/database.ts";
import { durabilitySettings } from "../platform/durability.ts";
import type { App, RequestVariables } from "./trail.ts";

/** What must work before requests are sent here; each gives facts to show, and throws with the reason when it does not work. */
export type ReadinessChecks = Readonly<Record<string, () => Promise<unknown>>>;

/** What the pages are made of. */
export interface HealthSources {
  readonly system: Database;
  readonly metrics: Registry;
  readonly readiness: ReadinessChecks;
}

const checkDeadlineMs = 3_000;

/** Adds `/healthz` (the process lives), `/readyz` (it can serve) and `/metrics` (Prometheus). */
export function addHealthPages(app: App, sources: HealthSources): void {
  app.get("/healthz", (c) => c.json({ status: "ok" }));
  app.get("/readyz", async (c) => {
    const checks = { database: () => durabilitySettings(sources.system), ...sources.readiness };
    const results = await Promise.all(
      Object.entries(checks).map(async ([name, check]) => [name, await outcome(check)] as const),
    );
    const ready = results.every(([, result]) => result.ready);
    return c.json({ status: ready ? "ready" : "not-ready", checks: Object.fromEntries(results) }, ready ? 200 : 503, {
      "cache-control": "no-store",
      ...(ready ? {} : { "retry-after": "2" }),
    });
  });
  app.get("/metrics", async (c) =>
    c.text(await sources.metrics.metrics(), 200, { "content-type": sources.metrics.contentType }),
  );
}

/** The pages alone, for a replica that serves no API. */
export function createHealthApp(sources: HealthSources): App {
  const app: App = new Hono<RequestVariables>();
  addHealthPages(app, sources);
  return app;
}

interface CheckResult {
  readonly ready: boolean;
  readonly reason?: string;
  readonly facts?: unknown;
}

async function outcome(check: () => Promise<unknown>): Promise<CheckResult> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no answer within ${checkDeadlineMs} ms`)), checkDeadlineMs);
  try {
    const facts = await Promise.race([check(), late.promise]);
    return facts === undefined ? { ready: true } : { ready: true, facts };
  } catch (error) {
    // Only the code: messages of drivers can hold addresses and names that strangers need not know.
    const code = error instanceof Error && "code" in error ? String(error.code) : undefined;
    return { ready: false, reason: code ?? (error instanceof Error ? error.message : "failed") };
  } finally {
    clearTimeout(timer);
  }
}
