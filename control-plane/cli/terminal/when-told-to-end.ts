/** What a terminal's Ctrl-C and what a supervisor, `timeout` or a CI runner sends. */
const signals = ["SIGINT", "SIGTERM"] as const;

/** `timeout` and others tell their child and then its whole group: within this it is the same word. */
const sameWordMs = 1_000;

/**
 * Calls `end` once when the program is told to end, by Ctrl-C or from outside; whoever tells it again later ends it at once.
 *
 * @param nowMs milliseconds since any instant; never goes back
 * @returns how to be told no more
 */
export function whenToldToEnd(end: () => void, nowMs = (): number => performance.now()): () => void {
  let toldAtMs: number | undefined;
  const forget = (): void => {
    for (const signal of signals) process.off(signal, told);
  };
  const told = (signal: NodeJS.Signals): void => {
    if (toldAtMs === undefined) {
      toldAtMs = nowMs();
      end();
    } else if (nowMs() - toldAtMs >= sameWordMs) {
      forget();
      process.kill(process.pid, signal);
    }
  };
  for (const signal of signals) process.on(signal, told);
  return forget;
}
