import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Database } from "./database.ts";
import { sql } from "./sql.ts";

/** Work that brings the tables in order; takes no input and is safe to run at any moment, also beside itself. */
export interface Loop {
  readonly name: string;
  readonly everyMs: number;
  /** One pass, bounded in what it does. What it returns is logged when it is not empty. */
  readonly run: () => Promise<Readonly<Record<string, unknown>> | undefined>;
}

/** Loops that run. */
export interface RunningLoops {
  /** Waits for the passes under way. */
  stop(): Promise<void>;
}

/**
 * Runs each loop at its interval, on one replica at a time: a pass is skipped while another replica holds
 * the loop's advisory lock. A pass that throws is logged and tried again at the next interval.
 *
 * The lock spares work and is no guard. It is gone with its connection, as when the database restarts, and the pass that
 * had it does not notice: it goes on beside that of another replica, with what it read before. A pass must be right
 * beside another one, however long it stands still between reading and writing: what it writes looks again, in the same
 * transaction, at what the decision rested on.
 */
export function startLoops(db: Database, log: Logger, loops: readonly Loop[]): RunningLoops {
  const stopping = new AbortController();
  // A pass holds one connection for its lock and takes others for its work: if passes held all of them, each would
  // wait for the others.
  const inTurn = createTurns(Math.max(1, Math.floor(db.pool.options.max / 3)));
  const running = loops.map(async (loop) => {
    while (!stopping.signal.aborted) {
      // Replicas that start together shall not meet at every pass.
      const pauseMs = loop.everyMs * (0.9 + Math.random() * 0.2);
      await inTurn(async () => {
        // Its turn may come only when the loops are being stopped.
        if (!stopping.signal.aborted) await runOnce(db, log, loop);
      });
      // Rejects when the loops are stopped, which the condition asks next.
      await sleep(pauseMs, undefined, { signal: stopping.signal }).catch(() => {});
    }
  });
  return {
    async stop() {
      stopping.abort();
      await Promise.all(running);
    },
  };
}

/** Lets so many pieces of work run at once; the others wait in the order in which they came. */
function createTurns(most: number): (work: () => Promise<void>) => Promise<void> {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async (work) => {
    if (running >= most) await new Promise<void>((resolve) => waiting.push(resolve));
    else running += 1;
    try {
      await work();
    } finally {
      // Whoever is next takes over the place.
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  };
}

/**
 * Inside a transaction the last query's portal, and the snapshot in it, stays open until the next statement; one
 * that needs no snapshot takes its place. A pass may take an hour: vacuum must not wait for it, nor must the pass
 * itself when it finishes the detachment of a partition, which waits for whoever has an older snapshot.
 */
const endsSnapshot = sql`SET LOCAL idle_in_transaction_session_timeout = 0`;

async function runOnce(db: Database, log: Logger, loop: Loop): Promise<void> {
  try {
    await db.transaction(async (tx) => {
      const [lock] = await tx.query<{ mine: boolean }>(
        sql`SELECT pg_try_advisory_xact_lock(hashtextextended(${`loop ${loop.name}`}, 0)) AS mine`,
      );
      if (lock?.mine !== true) return;
      await tx.query(endsSnapshot);
      const report = await loop.run();
      if (report !== undefined && Object.keys(report).length > 0)
        log.info({ loop: loop.name, ...report }, "loop reports");
    });
  } catch (error) {
    log.warn({ err: error, loop: loop.name }, "loop failed");
  }
}
