import { parseNodeTopic } from "@cloudpods/shared/topics";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { hostingCache } from "./hosting.ts";
import { letterNotFound, letterRetried, refusing, stillRefused } from "./redrive-refusals.ts";
import { judgeMessages, storeGroup, transactionDeadlineMs, type StoreOutcome } from "./store-messages.ts";
import type { StorePool } from "./store-pool.ts";
import { usageDays } from "./usage-days.ts";

/** What became of a message that was taken in again. */
export interface RedrivenMessage {
  /** `duplicate`: its numbers had been stored from another copy in the meantime. */
  readonly outcome: "stored" | "duplicate";
  readonly samples: { readonly stored: number; readonly late: number; readonly rejected: number };
}

interface LetterRow {
  readonly topic: string;
  readonly payload: Buffer;
  readonly receivedAt: Date;
  readonly isRetried: boolean;
}

/**
 * Takes in a message that was put aside, by the way of every message and as if it had arrived when it did. Its
 * numbers were settled as a gap when it was put aside, and a number in a gap that arrives after all counts; a
 * number that is stored does not count again. Mark, samples and watermark are one transaction.
 * @param record runs in that transaction
 * @throws DomainError `DEAD_LETTER_NOT_FOUND`, `DEAD_LETTER_RETRIED`, `DEAD_LETTER_STILL_REFUSED` with the reason
 */
export async function redriveMessage(
  pool: StorePool,
  id: string,
  record: (tx: Queryable, redriven: RedrivenMessage) => Promise<void>,
): Promise<RedrivenMessage> {
  const [letter] = await pool.query<LetterRow>(sql`
    SELECT topic, payload, received_at AS "receivedAt", retried_at IS NOT NULL AS "isRetried" FROM telemetry_dead_letters WHERE id = ${id}`);
  if (letter === undefined) throw letterNotFound();
  if (letter.isRetried) throw letterRetried();
  const nodeId = parseNodeTopic(letter.topic)?.nodeId ?? "";
  // Nothing is cached: what was corrected a moment ago is the reason for trying again.
  const group = await judgeMessages({ hosting: hostingCache(pool, Date.now), days: usageDays(pool), clock: Date.now }, [
    { nodeId, payload: letter.payload, receivedAtMs: letter.receivedAt.getTime() },
  ]);
  return await refusing(() =>
    pool.transaction(transactionDeadlineMs, async (tx) => {
      // Whoever comes second waits here and finds the mark.
      const marked = await tx.execute(
        sql`UPDATE telemetry_dead_letters SET retried_at = clock_timestamp() WHERE id = ${id} AND retried_at IS NULL`,
      );
      if (marked === 0) throw letterRetried();
      const redriven = readOutcome(await storeGroup(tx, group));
      await record(tx, redriven);
      return redriven;
    }),
  );
}

/** @throws DomainError `DEAD_LETTER_STILL_REFUSED` */
function readOutcome({ verdicts, deadLetters, samplesStored, samplesLate, rejected }: StoreOutcome): RedrivenMessage {
  const [verdict] = verdicts;
  if (verdict === "unvouched") throw stillRefused("SPOOL_UNVOUCHED");
  if (verdict !== "new" && verdict !== "duplicate") throw stillRefused(deadLetters[0] ?? verdict ?? "NODE_UNKNOWN");
  return {
    outcome: verdict === "new" ? "stored" : "duplicate",
    samples: { stored: samplesStored, late: samplesLate, rejected: rejected.length },
  };
}
