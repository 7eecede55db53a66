import type { Logger } from "pino";
import { notifyTenant } from "../notifications/notify-tenant.ts";
import type { Database, Transaction } from "../platform/database.ts";
import { eachByItself } from "../platform/each-by-itself.ts";
import { sql } from "../platform/sql.ts";
import { auditPruned } from "./audit-pruned.ts";
import { goneNews, type GoneBackup } from "./backup-news.ts";
import { isOutOfReach } from "./backup-storage.ts";
import { lockBackupsOf, takeBackRetention } from "./take-back-retention.ts";

/**
 * Writes off backups whose archives lie where no host of the fleet will ever see them again. Each is in the audit log, and
 * its tenant is told, once for all of his that go together.
 * @returns how many were written off, what failed backups had left included
 */
export async function abandonBackups(
  { db, log }: { readonly db: Database; readonly log: Logger },
  now: Date,
): Promise<number> {
  const tenants = await db.query<{ tenantId: string }>(
    sql`SELECT DISTINCT b.tenant_id AS "tenantId" FROM cloud_pod_backups b WHERE ${isOutOfReach}`,
  );
  let abandoned = 0;
  const telling = {
    log,
    message: "backups that are out of reach could not be written off",
    fields: ({ tenantId }: { tenantId: string }) => ({ tenantId }),
  };
  await eachByItself(tenants, telling, async ({ tenantId }) => {
    abandoned += await db.transaction((tx) => abandonOf(tx, tenantId, now));
  });
  return abandoned;
}

async function abandonOf(tx: Transaction, tenantId: string, now: Date): Promise<number> {
  const pods = await tx.query<{ podId: string }>(
    sql`SELECT DISTINCT b.pod_id AS "podId" FROM cloud_pod_backups b WHERE b.tenant_id = ${tenantId} AND ${isOutOfReach} ORDER BY 1`,
  );
  for (const { podId } of pods) await lockBackupsOf(tx, podId);
  const gone = await tx.query<GoneBackup & { readonly nodeId: string; readonly state: string }>(sql`
    UPDATE cloud_pod_backups b SET state = CASE WHEN b.state = 'failed' THEN b.state ELSE 'pruned' END, pruned_at = ${now},
      error_code = CASE WHEN b.state = 'failed' THEN b.error_code ELSE 'STORAGE_GONE' END,
      error_message = CASE WHEN b.state = 'failed' THEN b.error_message ELSE 'The host that had it was removed, and no other sees its storage' END,
      errand = NULL, errand_command_id = NULL
    FROM cloud_pods p WHERE p.id = b.pod_id AND b.tenant_id = ${tenantId} AND ${isOutOfReach}
    RETURNING b.id, b.pod_id AS "podId", p.name AS "podName", b.started_at AS "startedAt", b.node_id AS "nodeId", b.state`);
  // Nothing that ever counted is gone with a failed one.
  const lost = gone.filter(({ state }) => state === "pruned");
  for (const podId of new Set(lost.map((backup) => backup.podId))) await takeBackRetention(tx, podId);
  for (const { id, podId, nodeId } of lost)
    await auditPruned(tx, { id, tenantId }, { podId, nodeId, reason: "STORAGE_GONE" });
  const news = goneNews(tenantId, lost);
  if (news !== undefined) await notifyTenant(tx, news);
  return gone.length;
}
