import { DomainError, type ErrorExtras, type ErrorKind } from "@cloudpods/shared/errors";
import { sqlState } from "../platform/database.ts";

/** The answer to a refused request: RFC 9457 and the project's own members. */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly instance: string;
  /** Stable upper-case code. */
  readonly error: string;
  readonly message: string;
  readonly details?: Readonly<Record<string, unknown>>;
  /** Problems of single fields, as JSON pointers. */
  readonly errors?: ErrorExtras["errors"];
  readonly requestId: string;
}

/** A problem and the headers that go with it. */
export interface ProblemAnswer {
  readonly problem: Problem;
  readonly headers: Readonly<Record<string, string>>;
}

interface Mapping {
  readonly status: number;
  readonly title: string;
  /** Sent as Retry-After where the error does not name its own. */
  readonly retryAfterSeconds?: number;
}

// A quota is 403 and not 429: clients repeat a 429 by themselves, and repeating does not help here.
const ofKind = {
  invalid: { status: 422, title: "Invalid request" },
  unauthenticated: { status: 401, title: "Not signed in" },
  forbidden: { status: 403, title: "Not allowed" },
  "not-found": { status: 404, title: "Not found" },
  "already-exists": { status: 409, title: "Already exists" },
  conflict: { status: 409, title: "Conflict" },
  "wrong-state": { status: 409, title: "Wrong state" },
  "precondition-failed": { status: 412, title: "Changed in the meantime" },
  "rate-limited": { status: 429, title: "Too many requests", retryAfterSeconds: 1 },
  "quota-exceeded": { status: 403, title: "Quota exceeded" },
  "no-capacity": { status: 503, title: "No capacity", retryAfterSeconds: 60 },
  unavailable: { status: 503, title: "Unavailable", retryAfterSeconds: 5 },
} as const satisfies Record<ErrorKind, Mapping>;

/** A refusal by the protocol itself, before any rule of the domain: unknown path, method, media type, size. */
export class HttpRefusal extends Error {
  override readonly name = "HttpRefusal";
  readonly status: 400 | 404 | 405 | 413 | 415;
  readonly code: string;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: HttpRefusal["status"],
    code: string,
    message: string,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.headers = headers;
  }
}

/** The answer to an error of any kind. Of an unknown one only the request id is told. */
export function problemOf(error: unknown, requestId: string): ProblemAnswer {
  if (error instanceof HttpRefusal) {
    return {
      problem: problem(error.status, "Bad request", error.code, error.message, requestId),
      headers: error.headers,
    };
  }
  const refusal = error instanceof DomainError ? error : databaseRefusal(error);
  if (refusal === undefined) {
    const detail = `An unexpected error happened. Quote the request id ${requestId} when you report it.`;
    return { problem: problem(500, "Internal error", "INTERNAL_ERROR", detail, requestId), headers: {} };
  }
  const mapping: Mapping = ofKind[refusal.kind];
  const retryAfterSeconds = refusal.retryAfterSeconds ?? mapping.retryAfterSeconds;
  const headers = {
    ...(retryAfterSeconds === undefined ? {} : { "retry-after": String(Math.ceil(retryAfterSeconds)) }),
    ...(mapping.status === 401 ? { "www-authenticate": "Bearer" } : {}),
  };
  return {
    problem: {
      ...problem(mapping.status, mapping.title, refusal.code, refusal.message, requestId),
      ...(refusal.details === undefined ? {} : { details: refusal.details }),
      ...(refusal.errors === undefined ? {} : { errors: refusal.errors }),
    },
    headers,
  };
}

function problem(status: number, title: string, code: string, detail: string, requestId: string): Problem {
  return {
    type: `urn:cloudpods:error:${code}`,
    title,
    status,
    detail,
    instance: `urn:cloudpods:request:${requestId}`,
    error: code,
    message: detail,
    requestId,
  };
}

const connectionErrors = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
]);
// 57P01–57P03: the server is shutting down, crashed or starting; 25006: it is a standby since a failover.
const awayStates = new Set(["57P01", "57P02", "57P03", "25006"]);
// 53300: too many connections; 57014: a statement took too long; 55P03: a lock did; 40001, 40P01: others were in
// the way at every attempt.
const busyStates = new Set(["53300", "57014", "55P03", "40001", "40P01"]);
// pg and pg-pool report these without a code.
const connectionMessages =
  /^(timeout exceeded when trying to connect|Connection terminated|Client has encountered a connection error|Cannot use a pool after calling end|Client was closed)/;

/** A lost, unreachable or overloaded database is worth trying again; everything else it reports is a fault of ours. */
function databaseRefusal(error: unknown): DomainError | undefined {
  const extras = { retryAfterSeconds: 2, cause: error };
  if (isDatabaseAway(error)) {
    const message = "The database cannot be reached at the moment.";
    return new DomainError("unavailable", "DATABASE_UNAVAILABLE", message, extras);
  }
  const state = error instanceof Error ? sqlState(error) : undefined;
  if (state === undefined || !busyStates.has(state)) return undefined;
  return new DomainError("unavailable", "DATABASE_BUSY", "The database has too much to do at the moment.", extras);
}

function isDatabaseAway(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const state = sqlState(error);
  if (state !== undefined && (awayStates.has(state) || state.startsWith("08"))) return true;
  if ("code" in error && typeof error.code === "string" && connectionErrors.has(error.code)) return true;
  if (connectionMessages.test(error.message)) return true;
  // Node tries both address families and reports the failures together.
  return error instanceof AggregateError && error.errors.some(isDatabaseAway);
}
