/** How one attempt to deliver ended. */
export type DeliveryOutcome =
  | { readonly kind: "delivered" }
  /** May pass: tried again. */
  | { readonly kind: "failed"; readonly code: string; readonly message: string }
  /** Trying again cannot help. */
  | { readonly kind: "refused"; readonly code: string; readonly message: string };

/** What becomes of a message after an attempt. */
export type AttemptDecision =
  | { readonly kind: "sent" }
  | { readonly kind: "retry"; readonly delayMs: number; readonly code: string; readonly message: string }
  | { readonly kind: "dead"; readonly code: string; readonly message: string };

/** With the delays between them about fourteen hours: longer than a night without anyone to look. */
export const attemptsMax = 14;
const delayFirstMs = 10_000;
const delayMaxMs = 4 * 3_600_000;

/**
 * Decides after attempt number `attempt` (the first is 1). Delays double and are spread over their upper half, so
 * that messages that failed together are not tried together. `random` is in [0, 1).
 */
export function decideAttempt(attempt: number, outcome: DeliveryOutcome, random: number): AttemptDecision {
  if (outcome.kind === "delivered") return { kind: "sent" };
  const { code, message } = outcome;
  if (outcome.kind === "refused" || attempt >= attemptsMax) return { kind: "dead", code, message };
  const delayMs = Math.ceil(Math.min(delayMaxMs, delayFirstMs * 2 ** (attempt - 1)) * (0.5 + random / 2));
  return { kind: "retry", delayMs, code, message };
}
