/** How long the control plane gets to acknowledge before a batch is offered again, ms. */
const FIRST_RETRY_MS = 30_000;
/** Longest time between two offers of one batch, ms. */
const LONGEST_RETRY_MS = 300_000;
/** Batches that may be offered and unacknowledged at a time. */
export const MAX_OFFERED = 8;

/** Remembers when offered batches are due again; a fresh one says that everything is. */
export interface OfferSchedule {
  isDue(seqFrom: bigint, nowMs: number): boolean;
  /** Notes an offer; the wait doubles with each one. */
  offered(seqFrom: bigint, nowMs: number): void;
  forget(seqFrom: bigint): void;
  /** Makes everything due and the next waits short again. */
  reset(): void;
}

/** Makes an empty schedule. Times are monotonic ms. */
export function createOfferSchedule(): OfferSchedule {
  const entries = new Map<bigint, { readonly dueMs: number; readonly waitMs: number }>();
  return {
    isDue: (seqFrom, nowMs) => (entries.get(seqFrom)?.dueMs ?? nowMs) <= nowMs,
    offered(seqFrom, nowMs) {
      const before = entries.get(seqFrom);
      const waitMs = before === undefined ? FIRST_RETRY_MS : Math.min(before.waitMs * 2, LONGEST_RETRY_MS);
      entries.set(seqFrom, { dueMs: nowMs + waitMs, waitMs });
    },
    forget(seqFrom) {
      entries.delete(seqFrom);
    },
    reset() {
      entries.clear();
    },
  };
}
