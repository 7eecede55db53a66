/** What a terminal's Ctrl-C and what a supervisor, `timeout` or a CI runner sends. */
const signals = ["SIGINT", "SIGTERM"] as const;

/**
 * Calls `end` once when the program is told to end, by Ctrl-C or from outside; whoever tells it again ends it at once.
 * @returns how to be told no more
 */
export function whenToldToEnd(end: () => void): () => void {
  const forget = (): void => {
    for (const signal of signals) process.off(signal, told);
  };
  const told = (): void => {
    forget();
    end();
  };
  for (const signal of signals) process.on(signal, told);
  return forget;
}
