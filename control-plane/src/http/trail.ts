import type { Hono } from "hono";
import type { Logger } from "pino";

/** What the request log tells of a request besides its line; filled in as it becomes known. */
export interface Trail {
  readonly requestId: string;
  readonly log: Logger;
  route: string | undefined;
  actor: string | undefined;
  tenantId: string | undefined;
  /** The task that the request has put into the queue or changed. */
  taskId: string | undefined;
}

/** What Hono carries with each request. */
export interface RequestVariables {
  readonly Variables: { trail: Trail };
  /** From the Node server; absent when a test calls the app directly. */
  readonly Bindings: { incoming?: { socket?: { remoteAddress?: string } } };
}

/** The whole HTTP side of the control plane; `fetch` answers requests. */
export type App = Hono<RequestVariables>;
