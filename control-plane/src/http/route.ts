import type { z } from "@hono/zod-openapi";
import type { PlatformRole, Scope } from "../security/scopes.ts";
import type { PublicContext, TenantContext, UserContext } from "./context.ts";
import type { AnswerHeaders, RouteTable } from "./route-table.ts";

/**
 * Who may call a route.
 * - `public`: anyone; credentials are ignored.
 * - `scope`: a caller who has the scope in the tenant he acts in. With `credential: "session"` API tokens are refused.
 * - `platform`: a user with the platform role (an administrator is an operator too).
 * - `session`: any user who is signed in, not an API token.
 */
export type Access =
  | "public"
  | { readonly scope: Scope; readonly credential?: "session" }
  | { readonly platform: Exclude<PlatformRole, "USER"> }
  | { readonly session: true };

/** The context that a handler gets, by the access of its route. */
export type ContextOf<A extends Access> = A extends "public"
  ? PublicContext
  : A extends { readonly scope: Scope }
    ? TenantContext
    : UserContext;

/** Parameters of a path: `/a/:pod/b/:id` has `pod` and `id`. */
export type ParamsOf<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? { readonly [K in Name]: string } & ParamsOf<`/${Rest}`>
  : Path extends `${string}:${infer Name}`
    ? { readonly [K in Name]: string }
    : unknown;

/** A request whose parts have passed their schemas. */
export interface ValidRequest<Params, Query, Body> {
  readonly params: Params;
  readonly query: Query;
  readonly body: Body;
  /** Version named by If-Match, in routes that say `checksVersion`; undefined when the caller did not ask. */
  readonly ifMatch: number | undefined;
  readonly headers: Headers;
}

/** Answers by status; the body of 204 is `noBody`. */
export type Responses = Readonly<Record<number, z.ZodType>>;

/** A type whose parts may be read-only, so that handlers can give what they got from elsewhere. */
export type Readable<T> = T extends Date
  ? T
  : T extends readonly (infer Item)[]
    ? readonly Readable<Item>[]
    : T extends object
      ? { readonly [K in keyof T]: Readable<T[K]> }
      : T;

/** What a handler gives back: one of the declared statuses with its body. The schema strips undeclared members. */
export type AnswerOf<R extends Responses> = {
  [S in keyof R]: {
    readonly status: S;
    readonly headers?: AnswerHeaders;
  } & (undefined extends z.input<R[S]> ? { readonly body?: undefined } : { readonly body: Readable<z.input<R[S]>> });
}[keyof R];

/** Idempotency of a POST that creates or charges. */
export type Idempotency =
  | true
  /** For answers with a secret that is shown once: tells the id of what was made, kept in place of the answer. */
  | { readonly shownOnce: (body: never) => string };

/** One route: everything that serving, documenting and testing it needs. */
export interface RouteDefinition<
  Path extends string,
  A extends Access,
  Query extends z.ZodObject,
  Body extends z.ZodType,
  R extends Responses,
  Given extends AnswerOf<R>,
> {
  readonly method: "get" | "post" | "put" | "patch" | "delete";
  /**
   * With `:name` parameters. `:pod` matches a VMID or a UUID, `:node` a name or a UUID, `:id`, `:task`,
   * `:tenant` and `:user` a UUID only, others any segment; what does not match is 404. Literal segments win over parameters.
   */
  readonly path: Path;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly access: A;
  /**
   * The route takes Idempotency-Key. Its handler runs in ONE transaction, with or without a key (`ctx.inTenant`
   * joins it; `ctx.inSystem` where the route acts in no tenant), because key, effect and answer must commit
   * together: so answer from within, throw to undo, wake others in `ctx.afterCommit`, and expect to be run
   * again after a deadlock. `?dryRun=true` runs without key and without the one transaction.
   */
  readonly idempotent?: Idempotency;
  /** The handler calls `checkVersion` with `ifMatch`. In other routes that change something If-Match is refused. */
  readonly checksVersion?: true;
  readonly request?: {
    readonly query?: Query;
    readonly body?: Body;
    /** A valid body, for the reference page and for the generated test of every route. */
    readonly example?: NoInfer<z.input<Body>>;
  };
  readonly responses: R;
  readonly handler: (
    request: ValidRequest<ParamsOf<Path>, z.output<Query>, z.output<Body>>,
    ctx: ContextOf<A>,
  ) => Promise<Given>;
}

/** Adds a route to the table. */
export function route<
  const Path extends string,
  const A extends Access,
  R extends Responses,
  Query extends z.ZodObject = z.ZodObject<Record<never, never>>,
  Body extends z.ZodType = z.ZodUndefined,
  // Inferred from what the handler returns, as constants: `status: 200` must not become a number.
  const Given extends AnswerOf<R> = AnswerOf<R>,
>(routes: RouteTable, definition: RouteDefinition<Path, A, Query, Body, R, Given>): void {
  // The table calls `handler` only with what this definition's own schemas and access gave.
  routes.add(definition as unknown as Parameters<RouteTable["add"]>[0]);
}
