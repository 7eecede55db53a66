import type { z } from "@hono/zod-openapi";
import { z as zod } from "@hono/zod-openapi";
import type { Access, ContextOf, ParamsOf, ValidRequest } from "./route.ts";
import type { Answer, RouteTable } from "./route-table.ts";

/** One event of a stream. */
export interface ServerSentEvent {
  /** Comes back as Last-Event-ID when the client reconnects. */
  readonly id?: string;
  readonly event?: string;
  /** Sent as JSON. */
  readonly data: unknown;
}

/** What the source of a stream is told. */
export interface StreamPosition {
  /** Id of the last event that the client has seen; undefined: from the beginning. */
  readonly lastEventId: string | undefined;
  /** Aborted when the client has gone or may no longer listen; waiting must end with it. */
  readonly signal: AbortSignal;
}

/** A route that answers with a stream of events (text/event-stream). */
export interface StreamDefinition<Path extends string, A extends Exclude<Access, "public">, Query extends z.ZodObject> {
  readonly path: Path;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly access: A;
  readonly request?: { readonly query?: Query };
  /**
   * Checks that the caller may listen (throws a DomainError otherwise) and gives the source of the events.
   * The source polls in transactions of its own: it must hold no database connection while it waits.
   */
  readonly open: (
    request: ValidRequest<ParamsOf<Path>, z.output<Query>, undefined>,
    ctx: ContextOf<A>,
  ) => Promise<(position: StreamPosition) => AsyncIterable<ServerSentEvent>>;
}

/**
 * Adds a stream to the table. A comment goes out every 15 s, and the stream ends within a second of the
 * end of the session or token that opened it.
 */
export function eventStream<
  const Path extends string,
  const A extends Exclude<Access, "public">,
  Query extends z.ZodObject = z.ZodObject<Record<never, never>>,
>(routes: RouteTable, definition: StreamDefinition<Path, A, Query>): void {
  const { open, ...rest } = definition;
  routes.add({
    ...rest,
    method: "get",
    mediaType: "text/event-stream",
    responses: { 200: zod.string().openapi({ description: "text/event-stream" }) },
    handler: async (request, ctx): Promise<Answer> => {
      // The table calls `open` only with what this definition's own schemas and access gave.
      const source = await open(request as never, ctx as never);
      return { status: 200, events: (position) => source(position) };
    },
  });
}
