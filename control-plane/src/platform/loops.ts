import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Database } from "./database.ts";
import { sql } from "./sql.ts";

/** Work that brings the tables in order; takes no input and is safe to run at any moment. */
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
 */
export function startLoops(db: Database, log: Logger, loops: readonly Loop[]): RunningLoops {
  const stopping = new AbortController();
  const running = loops.map(async (loop) => {
    while (!stopping.signal.aborted) {
      // Replicas that start together shall not meet at every pass.
      const pauseMs = loop.everyMs * (0.9 + Math.random() * 0.2);
      await runOnce(db, log, loop);
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

async function runOnce(db: Database, log: Logger, loop: Loop): Promise<void> {
  try {
    await db.transaction(async (tx) => {
      const [lock] = await tx.query<{ mine: boolean }>(
        sql`SELECT pg_try_advisory_xact_lock(hashtextextended(${`loop ${loop.name}`}, 0)) AS mine`,
      );
      if (lock?.mine !== true) return;
      const report = await loop.run();
      if (report !== undefined && Object.keys(report).length > 0)
        log.info({ loop: loop.name, ...report }, "loop corrected something");
    });
  } catch (error) {
    log.warn({ err: error, loop: loop.name }, "loop failed");
  }
}
