import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import pg from "pg";
import { noticesLoss } from "./lost-connections.ts";

/** A lock that one replica holds at a time, for as long as its connection lives. */
export interface ReplicaLock {
  /** Gives it up and stops trying. */
  release(): Promise<void>;
}

/** Told when the lock comes and goes. */
export interface ReplicaLockHolder {
  acquired(): void;
  lost(): void;
}

const tryEveryMs = 2_000;

/**
 * Tries to get the advisory lock of that name until it has it, and again whenever the connection that held it
 * is gone. The server notices a holder that vanished without a word within half a minute.
 */
export function holdReplicaLock(
  name: string,
  databaseUrl: string,
  holder: ReplicaLockHolder,
  log: Logger,
): ReplicaLock {
  const stopping = new AbortController();
  const loop = (async () => {
    while (!stopping.signal.aborted) {
      await holdOnce(name, databaseUrl, holder, stopping.signal).catch((error: unknown) =>
        log.debug({ err: error, name }, "a lock of replicas is not available"),
      );
      // Rejects when stopped, which the condition asks next.
      await sleep(tryEveryMs, undefined, { signal: stopping.signal }).catch(() => {});
    }
  })();
  return {
    async release() {
      stopping.abort();
      await loop;
    },
  };
}

async function holdOnce(
  name: string,
  databaseUrl: string,
  holder: ReplicaLockHolder,
  signal: AbortSignal,
): Promise<void> {
  const client = new pg.Client({
    ...noticesLoss(databaseUrl),
    application_name: `cloudpods lock ${name}`,
    connectionTimeoutMillis: 5_000,
    query_timeout: 5_000,
  });
  client.on("error", () => {}); // noticed by the next question
  await client.connect();
  let held = false;
  try {
    while (!signal.aborted) {
      const question = held
        ? "SELECT true AS held"
        : "SELECT pg_try_advisory_lock(hashtext('cloudpods'), hashtext($1)) AS held";
      const { rows } = await client.query<{ held: boolean }>(question, held ? [] : [name]);
      if (!held && rows[0]?.held === true) {
        held = true;
        holder.acquired();
      }
      await sleep(tryEveryMs, undefined, { signal }).catch(() => {});
    }
  } finally {
    if (held) holder.lost();
    await client.end().catch(() => {});
  }
}
