/**
 * Lets a bounded number of holders in at a time, first come first served. Who gives up while waiting
 * loses his place and leaves no trace.
 */
export interface Turns {
  /** Runs `work` when it is its turn. @throws the signal's reason when it is aborted before */
  take<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

/** Turns of which `limit` run at a time; `onLeave` is called after each, however it ended. */
export function createTurns(limit: number, onLeave: () => void = () => undefined): Turns {
  let running = 0;
  const waiting: (() => void)[] = [];
  const enter = async (signal: AbortSignal): Promise<void> => {
    signal.throwIfAborted();
    if (running < limit) {
      running += 1;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const admit = (): void => {
        signal.removeEventListener("abort", giveUp);
        resolve();
      };
      const giveUp = (): void => {
        waiting.splice(waiting.indexOf(admit), 1);
        reject(signal.reason as Error);
      };
      waiting.push(admit);
      signal.addEventListener("abort", giveUp, { once: true });
    });
  };
  const leave = (): void => {
    onLeave();
    const next = waiting.shift();
    // A place that is handed on stays counted.
    if (next === undefined) running -= 1;
    else next();
  };
  return {
    take: async (signal, work) => {
      await enter(signal);
      try {
        return await work();
      } finally {
        leave();
      }
    },
  };
}

/** Turns of one holder for each key; keys that nobody uses are forgotten. */
export interface KeyedTurns {
  take<T>(key: number, signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

export function createKeyedTurns(): KeyedTurns {
  const turns = new Map<number, { turns: Turns; users: number }>();
  return {
    take: async (key, signal, work) => {
      const entry = turns.get(key) ?? { turns: createTurns(1), users: 0 };
      turns.set(key, entry);
      entry.users += 1;
      try {
        return await entry.turns.take(signal, work);
      } finally {
        entry.users -= 1;
        if (entry.users === 0) turns.delete(key);
      }
    },
  };
}
