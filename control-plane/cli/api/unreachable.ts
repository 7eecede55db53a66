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

/** What OpenSSL says of a server that answers in the clear. */
const notEncrypted = new Set(["ERR_SSL_WRONG_VERSION_NUMBER", "ERR_SSL_PACKET_LENGTH_TOO_LONG", "EPROTO"]);

/** What a failed fetch says, for people; a wrong name or certificate does not pass. */
export function unreachable(url: URL, error: unknown): UnreachableError {
  if (error instanceof DOMException && (error.name === "TimeoutError" || error.name === "AbortError"))
    return new UnreachableError(`${url.origin} did not answer in time`, true, error);
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  if (url.protocol === "https:" && notEncrypted.has(code)) {
    const plain = url.origin.replace("https:", "http:");
    return new UnreachableError(`${url.origin} answers without encryption; is it ${plain}?`, false, error);
  }
  const reason = cause instanceof Error && cause.message !== "" ? cause.message : code;
  return new UnreachableError(
    `${url.origin} cannot be reached: ${reason.trim().replaceAll(/\s+/g, " ")}`,
    passing.has(code),
    error,
  );
}
