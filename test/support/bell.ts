import type { Database } from "../../control-plane/src/platform/database.ts";

/**
 * Tells those who wait inside this process that somebody committed something to a database. Workers, scripted hosts and the test
 * itself wait for each other dozens of times in a test; asking the tables every few milliseconds was most of what that cost.
 */
export interface Bell {
  /** How often it was rung: who looks notes it before, so that nothing that is committed meanwhile is slept through. */
  readonly rings: number;
  ring(): void;
  /** Waits until it was rung since `rings` was that high, at most `patienceMs`: other processes commit without ringing. */
  heard(rings: number, patienceMs: number, signal?: AbortSignal): Promise<void>;
  /** Calls at each ring. @returns what ends that */
  onRing(listener: () => void): () => void;
}

const bells = new WeakMap<Database, Bell>();

/** The bell of all who use this database. */
export function bellOf(db: Database): Bell {
  const bell = bells.get(db) ?? createBell();
  bells.set(db, bell);
  return bell;
}

/** Looks at each ring until `look` gives something other than undefined or false. @throws after the deadline */
export async function untilRung<T>(
  what: string,
  db: Database,
  look: () => Promise<T | undefined | false>,
  deadlineMs = 60_000,
): Promise<T> {
  const bell = bellOf(db);
  const endMs = performance.now() + deadlineMs;
  for (;;) {
    const { rings } = bell;
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > endMs) throw new Error(`${what} did not come within ${deadlineMs} ms`);
    await bell.heard(rings, unrungMs);
  }
}

/** How long something may stay unseen that was committed without ringing. */
export const unrungMs = 25;

function createBell(): Bell {
  const listeners = new Set<() => void>();
  let rings = 0;
  const onRing = (listener: () => void) => {
    listeners.add(listener);
    return () => void listeners.delete(listener);
  };
  return {
    get rings() {
      return rings;
    },
    ring() {
      rings += 1;
      for (const listener of listeners) listener();
    },
    onRing,
    async heard(since, patienceMs, signal) {
      if (rings !== since || signal?.aborted === true) return;
      await new Promise<void>((resolve) => {
        const end = (): void => {
          clearTimeout(timer);
          ignore();
          signal?.removeEventListener("abort", end);
          resolve();
        };
        const timer = setTimeout(end, patienceMs);
        const ignore = onRing(end);
        signal?.addEventListener("abort", end);
      });
    },
  };
}
