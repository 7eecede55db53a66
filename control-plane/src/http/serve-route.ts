import type { Context } from "hono";
import type { CredentialWatch } from "../security/credential-watch.ts";
import { admit, type Admission } from "./admit.ts";
import { parseIdempotencyKey, type StoredAnswer } from "./idempotency.ts";
import { readRequest } from "./read-request.ts";
import type { Route } from "./route-table.ts";
import { deadlineExceeded, runRoute, type Logins } from "./run-route.ts";
import { sendDownload } from "./send-download.ts";
import { sendEvents } from "./send-events.ts";
import type { RequestVariables } from "./trail.ts";

/** What serving needs besides the route. */
export interface Serving extends Admission, Logins {
  readonly deadlineMs: number;
  readonly credentialWatch: CredentialWatch;
  /** Aborted when the process ends: open streams end too. */
  readonly shutdown: AbortSignal;
}

/** Answers one request of a route: who is it, may he, is it valid, do it, tell. */
export async function serveRoute(route: Route, serving: Serving, c: Context<RequestVariables>): Promise<Response> {
  c.var.trail.route = `${route.method.toUpperCase()} ${route.path}`;
  return await beforeDeadline(serving.deadlineMs, async (signal) => {
    const admitted = await admit(route, serving, c, signal);
    const request = await readRequest(route, c);
    const key = parseIdempotencyKey(c.req.header("idempotency-key"));
    const outcome = await runRoute(route, serving, admitted, request, key);
    if ("status" in outcome) {
      c.var.trail.taskId = /^\/api\/tasks\/([0-9a-f-]{36})$/.exec(String(outcome.headers["location"]))?.[1];
      return toResponse(outcome);
    }
    if (admitted.actor === undefined) throw new Error("a stream needs a caller whose credential can end it");
    const life = {
      watch: serving.credentialWatch,
      listener: { caller: admitted.actor, tenantId: admitted.tenant?.tenantId },
      shutdown: serving.shutdown,
      lastEventId: c.req.header("last-event-id"),
    };
    if ("events" in outcome) return sendEvents(outcome.events, life);
    return sendDownload(outcome.download, route.mediaType ?? "text/plain", life);
  });
}

function toResponse(answer: StoredAnswer): Response {
  const headers = new Headers({ "cache-control": "no-store" });
  for (const [name, values] of Object.entries(answer.headers)) {
    for (const value of [values].flat()) headers.append(name, value);
  }
  if (answer.text !== undefined) headers.set("content-type", "application/json");
  return new Response(answer.text ?? null, { status: answer.status, headers });
}

/** Work that is late goes on unheard, but an idempotent route's transaction does not commit any more. */
async function beforeDeadline<T>(deadlineMs: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const passed = new AbortController();
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    passed.abort();
    late.reject(deadlineExceeded());
  }, deadlineMs);
  try {
    return await Promise.race([work(passed.signal), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
