import { DomainError } from "@cloudpods/shared/errors";
import type { Logger } from "pino";
import { Counter, Gauge, type Registry } from "prom-client";
import type { Queryable } from "../platform/database.ts";
import { countDeadLetters, type DeadLetterKind } from "./dead-letters.ts";

/** More are shown as this many: who looks must act long before. */
const countedMax = 10_000;

/** What is counted of dead letters. */
export interface DeadLetterMetrics {
  /** Counts a retry by what became of it; a refusal by its code. */
  retried<T extends { readonly outcome: string }>(kind: DeadLetterKind, retry: () => Promise<T>): Promise<T>;
}

/** Registers the counter and a gauge that asks the database when somebody reads it. */
export function deadLetterMetrics(registry: Registry, db: Queryable, log: Logger): DeadLetterMetrics {
  const registers = [registry];
  const retries = new Counter({
    name: "cloudpods_dead_letter_retries_total",
    help: "Retries of what was put aside, by what became of them.",
    labelNames: ["kind", "outcome"],
    registers,
  });
  new Gauge({
    name: "cloudpods_dead_letters",
    help: `What was put aside and waits to be retried; at most ${countedMax} are counted.`,
    labelNames: ["kind"],
    registers,
    async collect() {
      this.reset();
      try {
        for (const [kind, count] of await countDeadLetters(db, countedMax)) this.set({ kind }, count);
      } catch (error) {
        // Without the database there is no figure, and the others are still worth reading.
        log.warn({ err: error }, "what was put aside cannot be counted");
      }
    },
  });
  return {
    async retried(kind, retry) {
      try {
        const result = await retry();
        retries.inc({ kind, outcome: result.outcome });
        return result;
      } catch (error) {
        retries.inc({ kind, outcome: error instanceof DomainError ? error.code : "ERROR" });
        throw error;
      }
    },
  };
}
