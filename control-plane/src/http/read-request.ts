import type { Context } from "hono";
import { z } from "@hono/zod-openapi";
import { DomainError } from "@cloudpods/shared/errors";
import { HttpRefusal } from "./problem.ts";
import { parameterNames, type Route } from "./route-table.ts";
import type { ValidRequest } from "./route.ts";
import { parseIfMatch } from "./version-check.ts";

/** A request whose parts have passed their schemas, and those parts as one JSON text. */
export interface ReadRequest {
  readonly valid: ValidRequest<Readonly<Record<string, string>>, unknown, unknown>;
  readonly json: string;
}

const noQuery = z.strictObject({});
// Clients that send an empty object with every POST ask for nothing by it.
const noBody = z
  .strictObject({})
  .optional()
  .transform(() => undefined);
const strictQueries = new WeakMap<z.ZodObject, z.ZodObject>();

/**
 * Reads and validates a request. What a route does not declare is refused and never dropped: a misspelt `dryRun`
 * must not do the deed, nor a misspelt filter show everything.
 * @throws DomainError `invalid` VALIDATION_FAILED with the JSON pointer of each problem; HttpRefusal for what is
 *   not JSON at all.
 */
export async function readRequest(route: Route, c: Context): Promise<ReadRequest> {
  const params = Object.fromEntries(parameterNames(route.path).map((name) => [name, c.req.param(name) ?? ""]));
  const query = validate(strictly(route.request?.query), flattened(c.req.queries()), "/query");
  const body = validate(route.request?.body ?? noBody, await readJson(c), "");
  const json = JSON.stringify({ params, query, body }, bigintAsText);
  // PostgreSQL's text cannot hold it; no name, key or label needs it.
  if (/(?<!\\)(?:\\\\)*\\u0000/.test(json)) {
    throw new DomainError("invalid", "VALIDATION_FAILED", "The request has a NUL character.");
  }
  const valid = { params, query, body, ifMatch: readIfMatch(route, c), headers: c.req.raw.headers };
  return { valid, json };
}

/** A precondition that nobody looks at must not seem to be met. */
function readIfMatch(route: Route, c: Context): number | undefined {
  const ifMatch = parseIfMatch(c.req.header("if-match"));
  if (ifMatch === undefined || route.checksVersion === true || route.method === "get") return ifMatch;
  throw new DomainError("precondition-failed", "IF_MATCH_UNSUPPORTED", "There is no version here to compare with.");
}

/** For JSON.stringify: 64-bit numbers as decimal text. */
export function bigintAsText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? value.toString() : value;
}

async function readJson(c: Context): Promise<unknown> {
  const text = await c.req.text();
  if (text === "") return undefined;
  const mediaType = (c.req.header("content-type") ?? "").split(";")[0]?.trim().toLowerCase();
  if (mediaType !== "application/json") {
    throw new HttpRefusal(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be sent as application/json.");
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new HttpRefusal(400, "MALFORMED_JSON", "The body is not JSON.");
  }
}

/** The schema without room for other members; made once, because a schema is compiled when it is first used. */
function strictly(schema: z.ZodObject | undefined): z.ZodObject {
  if (schema === undefined) return noQuery;
  const strict = strictQueries.get(schema) ?? schema.strict();
  strictQueries.set(schema, strict);
  return strict;
}

/** A parameter that is given once as text, one that is given several times as a list. */
function flattened(queries: Record<string, string[]>): Record<string, string | string[]> {
  return Object.fromEntries(
    Object.entries(queries).map(([name, values]) => [name, values.length === 1 ? (values[0] ?? "") : values]),
  );
}

function validate(schema: z.ZodType, value: unknown, pointerBase: string): unknown {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new DomainError("invalid", "VALIDATION_FAILED", "The request does not have the expected form.", {
    errors: result.error.issues.flatMap((issue) => pointersOf(issue, pointerBase)),
  });
}

function pointersOf(issue: z.core.$ZodIssue, base: string): { pointer: string; detail: string }[] {
  const path = base + issue.path.map(segment).join("");
  if (issue.code !== "unrecognized_keys") return [{ pointer: path, detail: issue.message }];
  return issue.keys.map((key) => ({ pointer: path + segment(key), detail: "There is no such member." }));
}

/** One step of a JSON pointer (RFC 6901). */
function segment(name: PropertyKey): string {
  return `/${String(name).replaceAll("~", "~0").replaceAll("/", "~1")}`;
}
