import type { z } from "@hono/zod-openapi";
import { z as zod } from "@hono/zod-openapi";
import type { Access, ContextOf, ParamsOf, ValidRequest } from "./route.ts";
import type { Answer, RouteTable } from "./route-table.ts";

/** A text of any length that is made while it is sent. */
export interface Download {
  /** Name under which browsers keep it; letters, digits, dots and hyphens. */
  readonly fileName: string;
  /** The next part is asked for when the client has taken the last; no part may hold a database connection. */
  readonly parts: AsyncIterable<string>;
}

/** A route that answers with a text other than JSON. */
export interface DownloadDefinition<
  Path extends string,
  A extends Exclude<Access, "public">,
  Query extends z.ZodObject,
> {
  readonly path: Path;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly access: A;
  readonly request?: { readonly query?: Query };
  /** Without parameters; the text is always UTF-8. */
  readonly mediaType: "text/csv";
  /** Checks that the caller may have it (throws a DomainError otherwise) and gives the text. */
  readonly open: (
    request: ValidRequest<ParamsOf<Path>, z.output<Query>, undefined>,
    ctx: ContextOf<A>,
  ) => Promise<Download>;
}

/**
 * Adds a download to the table. A text that cannot be finished, also because the session or token that asked for it has
 * ended, breaks the connection: nobody takes a part for the whole.
 */
export function download<
  const Path extends string,
  const A extends Exclude<Access, "public">,
  Query extends z.ZodObject = z.ZodObject<Record<never, never>>,
>(routes: RouteTable, definition: DownloadDefinition<Path, A, Query>): void {
  const { open, mediaType, ...rest } = definition;
  routes.add({
    ...rest,
    method: "get",
    mediaType,
    responses: { 200: zod.string().openapi({ description: mediaType }) },
    handler: async (request, ctx): Promise<Answer> => {
      // The table calls `open` only with what this definition's own schemas and access gave.
      return { status: 200, download: await open(request as never, ctx as never) };
    },
  });
}
