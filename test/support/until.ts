import { setTimeout as sleep } from "node:timers/promises";

/** Rest between two looks that ask a control plane: each costs it transactions, and a suite waits for hours in sum. */
export const restBetweenRequestsMs = 120;

/**
 * Waits until `look` gives something other than undefined or false.
 * @param restMs between two looks
 * @throws after the deadline
 */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMs = 60_000,
  restMs = 20,
): Promise<T> {
  const endMs = performance.now() + deadlineMs;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > endMs) throw new Error(`${what} did not come within ${deadlineMs} ms`);
    await sleep(restMs);
  }
}
