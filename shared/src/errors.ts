/** What kind of refusal an error is; each transport maps kinds to its own codes in one table. */
export const errorKinds = [
  "invalid",
  "unauthenticated",
  "forbidden",
  "not-found",
  "already-exists",
  "conflict",
  "wrong-state",
  "precondition-failed",
  "rate-limited",
  "quota-exceeded",
  "no-capacity",
  "unavailable",
] as const;
export type ErrorKind = (typeof errorKinds)[number];

/** What an error carries besides its text. */
export interface ErrorExtras {
  /** Machine-readable facts for the caller, e.g. the quota figures. Never secrets. */
  readonly details?: Readonly<Record<string, unknown>>;
  /** Problems of single fields, as JSON pointers into the body. */
  readonly errors?: readonly { readonly pointer: string; readonly detail: string }[];
  /** When trying again makes sense. */
  readonly retryAfterSeconds?: number;
  readonly cause?: unknown;
}

/**
 * A refusal that the caller is meant to read. `code` is stable and upper-case; `message` is for
 * people and safe to show to the caller.
 */
export class DomainError extends Error {
  override readonly name = "DomainError";
  readonly kind: ErrorKind;
  readonly code: string;
  readonly details: Readonly<Record<string, unknown>> | undefined;
  readonly errors: ErrorExtras["errors"];
  readonly retryAfterSeconds: number | undefined;

  constructor(kind: ErrorKind, code: string, message: string, extras: ErrorExtras = {}) {
    super(message, extras.cause === undefined ? undefined : { cause: extras.cause });
    this.kind = kind;
    this.code = code;
    this.details = extras.details;
    this.errors = extras.errors;
    this.retryAfterSeconds = extras.retryAfterSeconds;
  }
}
