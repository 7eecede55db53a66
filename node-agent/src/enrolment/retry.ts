import { setTimeout as sleep } from "node:timers/promises";
import { AgentError } from "../agent-error.ts";
import { fullJitterMs } from "../backoff.ts";

const limits = { baseMs: 1_000, capMs: 15_000 };
/** About a minute in all: whoever runs `join` by hand is waiting for it. */
const maxAttempts = 6;

/** Repeats an attempt while its failure is a retryable `AgentError`; the last failure is thrown. */
export async function retryWithBackoff<T>(attempt: () => Promise<T>): Promise<T> {
  for (let failures = 0; ; failures += 1) {
    try {
      return await attempt();
    } catch (error) {
      const again = error instanceof AgentError && error.retryable && failures + 1 < maxAttempts;
      if (!again) throw error;
      await sleep(fullJitterMs(failures, Math.random(), limits));
    }
  }
}
