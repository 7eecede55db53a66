import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { enqueueNotification, type EmailPayload, type WebhookPayload } from "./enqueue-notification.ts";

/** Something that a tenant shall know, by all ways that he named. */
export interface TenantNews {
  readonly tenantId: string;
  /** Names the occasion; see `NewNotification`. */
  readonly dedupeKey: string;
  readonly email: EmailPayload;
  readonly webhook: WebhookPayload;
  /** Addresses named for this kind of news; empty: the billing address, else the owners. */
  readonly emails?: readonly string[];
  /** URL named for this kind of news; absent or null: the tenant's own webhook. */
  readonly webhookUrl?: string | null;
}

/**
 * Puts news for a tenant into the outbox. Only under the owner's login, since it looks up the owners' addresses.
 * @returns the channels that it goes out by; empty for a tenant who can be reached by none
 */
export async function notifyTenant(tx: Queryable, news: TenantNews): Promise<("email" | "webhook")[]> {
  const { tenantId, dedupeKey } = news;
  const named = news.emails ?? [];
  const emails = named.length > 0 ? named : await addressesOf(tx, tenantId);
  for (const recipient of emails)
    await enqueueNotification(tx, { tenantId, dedupeKey, channel: "email", recipient, payload: news.email });
  const url = news.webhookUrl ?? (await webhookOf(tx, tenantId));
  if (url !== null)
    await enqueueNotification(tx, { tenantId, dedupeKey, channel: "webhook", recipient: url, payload: news.webhook });
  return [...(emails.length > 0 ? (["email"] as const) : []), ...(url === null ? [] : (["webhook"] as const))];
}

async function addressesOf(tx: Queryable, tenantId: string): Promise<string[]> {
  const rows = await tx.query<{ email: string }>(sql`
    SELECT billing_email AS email FROM tenants WHERE id = ${tenantId} AND billing_email IS NOT NULL
    UNION ALL
    SELECT u.email FROM memberships m JOIN users u ON u.id = m.user_id JOIN tenants t ON t.id = m.tenant_id
    WHERE m.tenant_id = ${tenantId} AND m.role = 'owner' AND u.is_active AND t.billing_email IS NULL`);
  return rows.map((row) => row.email);
}

async function webhookOf(tx: Queryable, tenantId: string): Promise<string | null> {
  const [row] = await tx.query<{ url: string | null }>(
    sql`SELECT url FROM tenant_webhooks WHERE tenant_id = ${tenantId}`,
  );
  return row?.url ?? null;
}
