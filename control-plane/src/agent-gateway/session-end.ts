import { Metadata, status } from "@grpc/grpc-js";

/** Why a session does not begin or is ended, as the agent is told. */
export class SessionEnd extends Error {
  override readonly name = "SessionEnd";
  /** gRPC status. */
  readonly code: status;
  /** Stable upper-case reason; the first word of the status details. */
  readonly reason: string;
  /** When to try again, ms; also in the trailer `retry-after-ms`. */
  readonly retryAfterMs: number | undefined;

  constructor(code: status, reason: string, message: string, retryAfterMs?: number) {
    super(`${reason}: ${message}`);
    this.code = code;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The status of a call that ends for this reason. */
export function statusOf(end: SessionEnd): { code: status; details: string; metadata: Metadata } {
  const metadata = new Metadata();
  if (end.retryAfterMs !== undefined) metadata.set("retry-after-ms", String(Math.ceil(end.retryAfterMs)));
  return { code: end.code, details: end.message, metadata };
}

/** A newer session took over. */
export function superseded(): SessionEnd {
  return new SessionEnd(
    status.ABORTED,
    "SESSION_SUPERSEDED",
    "a newer session of this node has begun, or the node was removed",
  );
}

/** The agent broke the protocol. */
export function protocolError(message: string): SessionEnd {
  return new SessionEnd(status.INVALID_ARGUMENT, "PROTOCOL_ERROR", message);
}
