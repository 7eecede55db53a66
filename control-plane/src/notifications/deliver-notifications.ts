import type { Logger } from "pino";
import type { Database } from "../platform/database.ts";
import { unseal, type MasterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";
import { decideAttempt, type DeliveryOutcome } from "./decide-attempt.ts";
import type { EmailPayload, WebhookPayload } from "./enqueue-notification.ts";
import type { Mailer } from "./send-email.ts";
import { sendWebhook, type WebhookSending } from "./send-webhook.ts";
import { secretPurpose } from "./webhook-secret.ts";

/** What delivering needs. */
export interface DeliveryDeps {
  readonly db: Database;
  readonly log: Logger;
  readonly masterKey: MasterKey;
  /** Undefined: no mail server is configured. E-mails wait for one and die after three days. */
  readonly mailer: Mailer | undefined;
  readonly webhooks: WebhookSending;
}

/** What one pass did. */
export interface DeliveryReport {
  readonly sent: number;
  readonly failed: number;
  readonly dead: number;
}

type Claimed = {
  readonly id: string;
  readonly tenantId: string;
  readonly recipient: string;
  readonly attempt: number;
  readonly createdAt: Date;
} & (
  | { readonly channel: "email"; readonly payload: EmailPayload }
  | { readonly channel: "webhook"; readonly payload: WebhookPayload }
);

const lanes = 8;
/** Of one tenant at once: a receiver that never answers must not hold up the others. */
const lanesPerTenantMax = 2;
/** Longer than any attempt takes; after a crash the message is tried again after it. */
const leaseMs = 60_000;
/** A pass takes on nothing new after this. */
const passMs = 5_000;

/**
 * Delivers what is due, each at least once: a crash between the sending and the note of it sends again, with the same
 * id. Any number of replicas may do this at once.
 */
export async function deliverNotifications(deps: DeliveryDeps): Promise<DeliveryReport> {
  const untilMs = performance.now() + passMs;
  const report = { sent: 0, failed: 0, dead: await buryUnsendable(deps) };
  const busy = new Map<string, number>();
  let turn: Promise<unknown> = Promise.resolve();
  // One lane claims at a time: the next must know whose message the one before has.
  const next = async (): Promise<Claimed | undefined> => {
    const full = [...busy].filter(([, count]) => count >= lanesPerTenantMax).map(([tenantId]) => tenantId);
    const claimed = await claim(deps, full);
    if (claimed !== undefined) busy.set(claimed.tenantId, (busy.get(claimed.tenantId) ?? 0) + 1);
    return claimed;
  };
  const lane = async (): Promise<void> => {
    while (performance.now() < untilMs) {
      const mine = turn.then(next, next);
      turn = mine;
      const claimed = await mine;
      if (claimed === undefined) return;
      try {
        report[await attempt(deps, claimed)] += 1;
      } finally {
        const left = (busy.get(claimed.tenantId) ?? 1) - 1;
        if (left === 0) busy.delete(claimed.tenantId);
        else busy.set(claimed.tenantId, left);
      }
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: lanes }, lane));
  const broken = ended.find((end) => end.status === "rejected");
  if (broken !== undefined) throw broken.reason;
  return report;
}

async function claim(deps: DeliveryDeps, fullTenants: readonly string[]): Promise<Claimed | undefined> {
  const channels = deps.mailer === undefined ? ["webhook"] : ["email", "webhook"];
  const [claimed] = await deps.db.query<Claimed>(sql`
    UPDATE notifications SET attempts = attempts + 1, next_try_at = now() + ${leaseMs} * interval '1 ms'
    WHERE id = (
      SELECT id FROM notifications
      WHERE sent_at IS NULL AND dead_at IS NULL AND next_try_at <= now() AND channel = ANY(${channels})
        AND tenant_id <> ALL(${[...fullTenants]}::uuid[])
      ORDER BY next_try_at FOR UPDATE SKIP LOCKED LIMIT 1)
    RETURNING id, tenant_id AS "tenantId", channel, recipient, payload, attempts AS attempt, created_at AS "createdAt"`);
  return claimed;
}

async function attempt(deps: DeliveryDeps, claimed: Claimed): Promise<keyof DeliveryReport> {
  const outcome = claimed.channel === "email" ? await mail(deps, claimed) : await call(deps, claimed);
  const decision = decideAttempt(claimed.attempt, outcome, Math.random());
  // The attempt's number is the fence: who outlived his lease has no say any more.
  const mine = sql`id = ${claimed.id} AND attempts = ${claimed.attempt} AND sent_at IS NULL AND dead_at IS NULL`;
  switch (decision.kind) {
    case "sent":
      await deps.db.execute(
        sql`UPDATE notifications SET sent_at = now(), last_error_code = NULL, last_error_message = NULL WHERE ${mine}`,
      );
      return "sent";
    case "retry":
      await deps.db.execute(sql`
        UPDATE notifications SET next_try_at = now() + ${decision.delayMs} * interval '1 ms',
          last_error_code = ${decision.code}, last_error_message = ${decision.message} WHERE ${mine}`);
      return "failed";
    case "dead":
      await deps.db.execute(sql`
        UPDATE notifications SET dead_at = now(), last_error_code = ${decision.code}, last_error_message = ${decision.message}
        WHERE ${mine}`);
      deps.log.warn(
        { notificationId: claimed.id, channel: claimed.channel, code: decision.code },
        "a message is given up",
      );
      return "dead";
  }
}

async function mail({ mailer }: DeliveryDeps, claimed: Claimed & { channel: "email" }): Promise<DeliveryOutcome> {
  if (mailer === undefined) throw new Error("an e-mail was claimed without a mail server");
  return await mailer.send(claimed.id, claimed.recipient, claimed.payload);
}

async function call(deps: DeliveryDeps, claimed: Claimed & { channel: "webhook" }): Promise<DeliveryOutcome> {
  const [row] = await deps.db.query<{ sealed: string }>(
    sql`SELECT secret_sealed AS sealed FROM tenant_webhooks WHERE tenant_id = ${claimed.tenantId}`,
  );
  if (row === undefined)
    return { kind: "refused", code: "WEBHOOK_SECRET_MISSING", message: "The tenant has no secret to sign with" };
  const { event, data } = claimed.payload;
  const body = JSON.stringify({
    id: claimed.id,
    event,
    tenantId: claimed.tenantId,
    createdAt: claimed.createdAt,
    data,
  });
  let secret: string;
  try {
    secret = unseal(deps.masterKey, secretPurpose(claimed.tenantId), row.sealed);
  } catch {
    // One tenant's row, or a replica with another master key: it must not end the pass for all.
    const message = "The tenant's secret cannot be opened with this master key";
    return { kind: "failed", code: "WEBHOOK_SECRET_UNREADABLE", message };
  }
  return await sendWebhook({ url: claimed.recipient, secret, body, at: new Date() }, deps.webhooks);
}

/** E-mails that waited three days for a mail server to be configured: news that late would mislead. */
async function buryUnsendable({ db, mailer }: DeliveryDeps): Promise<number> {
  if (mailer !== undefined) return 0;
  return await db.execute(sql`
    UPDATE notifications SET dead_at = now(), last_error_code = 'EMAIL_NOT_CONFIGURED',
      last_error_message = 'No mail server is configured (CLOUDPODS_SMTP_URL)'
    WHERE channel = 'email' AND sent_at IS NULL AND dead_at IS NULL AND queued_at < now() - interval '3 days'`);
}
