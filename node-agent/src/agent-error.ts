/**
 * A failure that the agent can name. `code` is stable and upper-case; `message` is for people and
 * never holds a secret.
 */
export class AgentError extends Error {
  override readonly name = "AgentError";
  readonly code: string;
  /** Whether trying again later can help. */
  readonly retryable: boolean;

  constructor(code: string, message: string, options: { readonly retryable?: boolean; readonly cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryable = options.retryable ?? false;
  }
}

/** Message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Code of an `AgentError` or of a Node error such as ENOENT; undefined when there is none. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
