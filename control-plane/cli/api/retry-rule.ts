import { ApiRefusal, UnreachableError } from "../errors.ts";

/** Of a control plane that answers, but not with what was asked for. One that cannot be reached is tried until the deadline. */
const answeredAttemptsMax = 6;
const firstDelayMs = 250;
const delayMaxMs = 5_000;

/** Where a request stands that failed. */
export interface Standing {
  /** Of the attempt that failed, from 1. */
  readonly attempt: number;
  /** Until the request's deadline. */
  readonly leftMs: number;
  /** From 0 to 1; spreads clients that failed together. */
  readonly random: number;
}

/** How long to wait before a failed request is sent again; undefined: its error is the answer. */
export function retryDelayMs(error: unknown, { attempt, leftMs, random }: Standing): number | undefined {
  if (!isPassing(error)) return undefined;
  if (error instanceof ApiRefusal && attempt >= answeredAttemptsMax) return undefined;
  const backoffMs = Math.min(delayMaxMs, firstDelayMs * 2 ** (attempt - 1)) * (0.5 + random / 2);
  const askedMs = error instanceof ApiRefusal ? (error.retryAfterMs ?? 0) : 0;
  const delayMs = Math.max(backoffMs, askedMs);
  return delayMs < leftMs ? delayMs : undefined;
}

function isPassing(error: unknown): boolean {
  if (error instanceof UnreachableError) return error.isPassing;
  if (!(error instanceof ApiRefusal)) return false;
  const { status, error: code } = error.problem;
  // A full fleet does not empty in a moment, and the caller wants to know; our own request that is still
  // under way after its answer was lost will be done in one.
  if (code === "NO_CAPACITY") return false;
  return code === "IDEMPOTENCY_IN_PROGRESS" || status === 429 || (status >= 502 && status <= 504);
}
