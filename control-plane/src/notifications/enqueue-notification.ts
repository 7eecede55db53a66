import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** What an e-mail says. Never a password or token: mail lies about in many places. */
export interface EmailPayload {
  readonly subject: string;
  readonly text: string;
}

/** What a webhook says. Amounts and 64-bit counters are strings in it. */
export interface WebhookPayload {
  /** `<thing>.<happening>`, e.g. `budget.threshold_crossed`. */
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** One message to one recipient. */
export type NewNotification = {
  readonly tenantId: string;
  /** Names the occasion, e.g. `budget:2026-01:80`; the same recipient is told of it once. */
  readonly dedupeKey: string;
} & (
  | { readonly channel: "email"; readonly recipient: string; readonly payload: EmailPayload }
  | { readonly channel: "webhook"; readonly recipient: string; readonly payload: WebhookPayload }
);

/**
 * Puts a message into the outbox, in the transaction of what it tells about: both happen or neither. Works
 * under both logins.
 * @returns whether it is new; false when this occasion was told to this recipient already
 */
export async function enqueueNotification(tx: Queryable, message: NewNotification): Promise<boolean> {
  const added = await tx.execute(sql`
    INSERT INTO notifications (id, tenant_id, channel, recipient, dedupe_key, payload)
    VALUES (${newId()}, ${message.tenantId}, ${message.channel}, ${message.recipient}, ${message.dedupeKey}, ${JSON.stringify(message.payload)})
    ON CONFLICT ON CONSTRAINT one_notification_per_occasion DO NOTHING`);
  return added === 1;
}
