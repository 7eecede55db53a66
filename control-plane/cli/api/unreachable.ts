import { UnreachableError } from "../errors.ts";

const passing = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EAI_AGAIN",
  "UND_ERR_SOCKET",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** What a failed fetch says, for people; a wrong name or certificate does not pass. */
export function unreachable(url: URL, error: unknown): UnreachableError {
  if (error instanceof DOMException && (error.name === "TimeoutError" || error.name === "AbortError"))
    return new UnreachableError(`${url.origin} did not answer in time`, true, error);
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const reason = cause instanceof Error && cause.message !== "" ? cause.message : code;
  return new UnreachableError(`${url.origin} cannot be reached: ${reason}`, passing.has(code), error);
}
