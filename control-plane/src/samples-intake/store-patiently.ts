import { setTimeout as sleep } from "node:timers/promises";
import { sqlState } from "../platform/database.ts";
import type { IncomingMessage, StoreOutcome } from "./store-messages.ts";

/** Where the outcome of a group goes, and what to ask while trying. */
export interface Patience {
  /** One attempt; throws what the database throws. */
  readonly store: (messages: readonly IncomingMessage[]) => Promise<StoreOutcome>;
  /** Something was stored and may be acknowledged. */
  readonly stored: (outcome: StoreOutcome) => void;
  /** An attempt failed for a reason that will pass. */
  readonly failed: (error: unknown, attempt: number) => void;
  /** A message could not even be kept as a dead letter; its sender will offer it again. */
  readonly dropped: (message: IncomingMessage, error: unknown) => void;
  readonly signal: AbortSignal;
}

const backoffMsMin = 100;
const backoffMsMax = 10_000;

/**
 * Stores a group, however long the database is away. When the database refuses the content, each message
 * is tried alone, so that only the guilty one is kept as a dead letter. Ends early when aborted: what is
 * not stored was not acknowledged and will come again.
 */
export async function storePatiently(messages: readonly IncomingMessage[], patience: Patience): Promise<void> {
  const refusal = await storeUnlessRefused(messages, patience);
  if (refusal === undefined) return;
  for (const message of messages) {
    const alone = messages.length === 1 ? refusal : await storeUnlessRefused([message], patience);
    if (alone === undefined) continue;
    const detail = alone.error instanceof Error ? alone.error.message : String(alone.error);
    const dead = await storeUnlessRefused([{ ...message, poison: detail }], patience);
    if (dead !== undefined) patience.dropped(message, dead.error);
  }
}

/** Tries until the group is stored, or returns the error when the content itself was refused. */
async function storeUnlessRefused(
  messages: readonly IncomingMessage[],
  patience: Patience,
): Promise<{ readonly error: unknown } | undefined> {
  for (let attempt = 1; !patience.signal.aborted; attempt++) {
    try {
      patience.stored(await patience.store(messages));
      return undefined;
    } catch (error) {
      if (isAboutContent(error)) return { error };
      patience.failed(error, attempt);
      const pauseMs = Math.random() * Math.min(backoffMsMax, backoffMsMin * 2 ** Math.min(attempt, 10));
      // Rejects when aborted, which the loop asks next.
      await sleep(pauseMs, undefined, { signal: patience.signal }).catch(() => {});
    }
  }
  return undefined;
}

/** SQLSTATE classes 22 "data exception" and 23 "integrity constraint violation"; anything else will pass or is ours. */
export function isAboutContent(error: unknown): boolean {
  const state = sqlState(error) ?? "";
  return state.startsWith("22") || state.startsWith("23");
}
