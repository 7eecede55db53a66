import type { Database, Queryable } from "../platform/database.ts";
import { reviveNotification } from "../notifications/revive-notification.ts";
import { redriveMessage } from "../samples-intake/redrive-message.ts";
import { letterNotFound } from "../samples-intake/redrive-refusals.ts";
import { redriveSample } from "../samples-intake/redrive-sample.ts";
import type { StorePool } from "../samples-intake/store-pool.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import type { DeadLetterMetrics } from "./dead-letter-metrics.ts";
import { findDeadLetterKind, type DeadLetterKind } from "./dead-letters.ts";

/** Where retries happen: notifications in the outbox, samples by COPY on connections of their own. */
export interface RetryDeps {
  readonly storePool: StorePool;
  readonly deadLetterMetrics: DeadLetterMetrics;
}

/** What a retry came to. */
export interface Retry {
  readonly kind: DeadLetterKind;
  readonly id: string;
  /** `queued`: it will be delivered; `duplicate`: what it holds had been stored before. */
  readonly outcome: "queued" | "stored" | "duplicate";
  /** Of telemetry: `late` ones went into figures that are sealed. */
  readonly samples?: { readonly stored: number; readonly late: number; readonly rejected: number };
}

/**
 * Gives what was put aside another try; the audit row is written in the transaction that changes something.
 * @throws DomainError `DEAD_LETTER_NOT_FOUND`, `DEAD_LETTER_RETRIED`, `DEAD_LETTER_STILL_REFUSED` with the reason
 */
export async function retryDeadLetter(
  { storePool, deadLetterMetrics }: RetryDeps,
  caller: { readonly system: Database; readonly actor: Actor; readonly requestId: string },
  id: string,
): Promise<Retry> {
  const kind = await findDeadLetterKind(caller.system, id);
  if (kind === undefined) throw letterNotFound();
  const record = (tx: Queryable, tenantId: string | undefined, detail: Readonly<Record<string, unknown>>) =>
    recordAudit(tx, {
      actor: caller.actor,
      requestId: caller.requestId,
      tenantId,
      action: `${kind}.retry`,
      targetType: kind,
      targetId: id,
      detail,
    });
  const retries: Readonly<Record<DeadLetterKind, () => Promise<Omit<Retry, "kind" | "id">>>> = {
    notification: () =>
      caller.system.transaction(async (tx) => {
        await record(tx, await reviveNotification(tx, id), {});
        return { outcome: "queued" };
      }),
    "telemetry-message": () => redriveMessage(storePool, id, (tx, redriven) => record(tx, undefined, { ...redriven })),
    "rejected-sample": async () => {
      const { isLate } = await redriveSample(storePool, id, (tx, { tenantId, podId, isLate: late }) =>
        record(tx, tenantId, { podId, isLate: late }),
      );
      return { outcome: "stored", samples: { stored: isLate ? 0 : 1, late: isLate ? 1 : 0, rejected: 0 } };
    },
  };
  return { kind, id, ...(await deadLetterMetrics.retried(kind, retries[kind])) };
}
