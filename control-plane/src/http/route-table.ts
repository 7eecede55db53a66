import type { z } from "@hono/zod-openapi";
import type { TenantContext } from "./context.ts";
import type { Access, Responses, ValidRequest } from "./route.ts";
import type { Download } from "./download.ts";
import type { ServerSentEvent, StreamPosition } from "./event-stream.ts";

/** Headers of an answer; a list is sent as several headers of that name. */
export type AnswerHeaders = Readonly<Record<string, string | readonly string[]>>;

/** What a handler gave, with the types of its definition forgotten. */
export interface Answer {
  readonly status: number;
  readonly body?: unknown;
  readonly headers?: AnswerHeaders;
  /** In place of a body: events that are sent as they come. */
  readonly events?: (position: StreamPosition) => AsyncIterable<ServerSentEvent>;
  /** In place of a body: a text that is made while it is sent. */
  readonly download?: Download;
}

/** A route with the types of its definition forgotten. */
export interface Route {
  readonly method: "get" | "post" | "put" | "patch" | "delete";
  readonly path: string;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly access: Access;
  readonly checksVersion?: true;
  readonly idempotent?: true | { readonly shownOnce: (body: unknown) => string };
  readonly request?: { readonly query?: z.ZodObject; readonly body?: z.ZodType; readonly example?: unknown };
  readonly responses: Responses;
  /** What it answers with instead of JSON. */
  readonly mediaType?: "text/event-stream" | "text/csv";
  readonly handler: (
    request: ValidRequest<Readonly<Record<string, string>>, unknown, unknown>,
    ctx: TenantContext,
  ) => Promise<Answer>;
}

/** All routes of an app, in the order in which they must be tried. */
export interface RouteTable {
  /** @throws Error when method and path are taken: the second would never be reached. */
  add(route: Route): void;
  list(): readonly Route[];
}

/** A new, empty table. */
export function createRouteTable(): RouteTable {
  const routes = new Map<string, Route>();
  return {
    add(route) {
      const key = `${route.method} ${route.path.replaceAll(/:[^/]+/g, ":")}`;
      if (routes.has(key)) throw new Error(`the route ${route.method} ${route.path} exists already`);
      routes.set(key, route);
    },
    list: () => [...routes.values()].toSorted(literalsFirst),
  };
}

/** `/pods/plans` before `/pods/:pod`, whoever registered first. */
function literalsFirst(a: Route, b: Route): number {
  const [left, right] = [a.path.split("/"), b.path.split("/")];
  for (const [index, segment] of left.entries()) {
    const difference = Number(segment.startsWith(":")) - Number(right[index]?.startsWith(":") ?? false);
    if (difference !== 0) return difference;
  }
  return 0;
}

const uuidPattern = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}";

const parameterPatterns: Readonly<Record<string, string>> = {
  pod: `[0-9]{1,9}|${uuidPattern}`,
  node: "[0-9a-zA-Z][0-9a-zA-Z.-]*",
  id: uuidPattern,
  task: uuidPattern,
  tenant: uuidPattern,
  user: uuidPattern,
};

/** What values a path parameter can have, as the source of a regular expression; undefined: any segment. */
export function parameterPattern(name: string): string | undefined {
  return parameterPatterns[name];
}

/** Names of the parameters of a path, in order. */
export function parameterNames(path: string): string[] {
  return [...path.matchAll(/:([^/]+)/g)].map((match) => match[1] ?? "");
}
