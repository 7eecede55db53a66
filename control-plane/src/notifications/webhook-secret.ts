import { randomBytes } from "node:crypto";
import type { Transaction } from "../platform/database.ts";
import { seal, type MasterKey } from "../platform/sealing.ts";
import { sql } from "../platform/sql.ts";

/** A tenant's webhook without its secret. */
export interface WebhookSettings {
  readonly url: string | null;
  readonly secretMadeAt: Date | null;
  /** 0 when nothing was ever set. */
  readonly version: number;
}

/** What a secret is sealed as: one tenant's secret cannot be put into another's row. */
export function secretPurpose(tenantId: string): string {
  return `webhook secret of ${tenantId}`;
}

/** The settings of a tenant. */
export async function readWebhook(tx: Transaction, tenantId: string, lock = false): Promise<WebhookSettings> {
  const [row] = await tx.query<WebhookSettings>(sql`
    SELECT url, secret_made_at AS "secretMadeAt", version FROM tenant_webhooks WHERE tenant_id = ${tenantId} ${lock ? sql`FOR UPDATE` : sql``}`);
  return row ?? { url: null, secretMadeAt: null, version: 0 };
}

/**
 * Sets where a tenant's webhooks go. The first time, and when asked to, a secret is made.
 * @returns the new secret, to be shown this once; undefined when the old one stays
 */
export async function setWebhook(
  tx: Transaction,
  key: MasterKey,
  tenantId: string,
  change: { readonly url: string | null; readonly newSecret: boolean },
): Promise<string | undefined> {
  const secret = `whsec_${randomBytes(32).toString("hex")}`;
  const sealed = seal(key, secretPurpose(tenantId), secret);
  const [row] = await tx.query<{ isNew: boolean }>(sql`
    INSERT INTO tenant_webhooks AS w (tenant_id, url, secret_sealed) VALUES (${tenantId}, ${change.url}, ${sealed})
    ON CONFLICT (tenant_id) DO UPDATE SET url = excluded.url, version = w.version + 1, updated_at = now(),
      secret_sealed = CASE WHEN ${change.newSecret} THEN excluded.secret_sealed ELSE w.secret_sealed END,
      secret_made_at = CASE WHEN ${change.newSecret} THEN now() ELSE w.secret_made_at END
    RETURNING secret_sealed = ${sealed} AS "isNew"`);
  return row?.isNew === true ? secret : undefined;
}
