import { pino } from "pino";
import { expect, test } from "vitest";
import { BackupWorkbench } from "../../../test/support/backup-workbench.ts";
import { drainsOf } from "../../../test/support/drain-workbench.ts";
import { vanish } from "../../../test/support/lost-hosts.ts";
import { sql } from "../platform/sql.ts";
import { abandonBackups } from "./abandon-backups.ts";

const bench = new BackupWorkbench();
const drains = drainsOf(bench);

const abandon = () => abandonBackups({ db: bench.db.system, log: pino({ level: "silent" }) }, new Date());

test("backups that a removed host alone had are counted, written off, and told of", async () => {
  const { pod, backupId, nodes } = await bench.backedUp();
  const [dead] = nodes;
  const { backupId: second } = await bench.done(bench.backUp(pod));
  await bench.db.system.execute(
    sql`UPDATE tenants SET billing_email = 'owner@example.com' WHERE id = ${bench.tenantId}`,
  );
  // The older one was to go because the newer one stays.
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_backups SET delete_requested_at = now(), delete_reason = 'retention' WHERE id = ${backupId}`,
  );
  await bench.db.system.execute(sql`
    WITH made AS (INSERT INTO storages (id, node_id, name, type, shared, holds_backups, total_gb)
      VALUES (gen_random_uuid(), ${dead.id}, 'local-backups', 'dir', false, true, 100) RETURNING id),
      seen AS (INSERT INTO node_storages (node_id, storage_id) SELECT ${dead.id}, id FROM made)
    UPDATE cloud_pod_backups SET storage_id = (SELECT id FROM made) WHERE id = ${second}`);
  await vanish(bench, dead);
  const where = `/api/nodes/${dead.name}`;
  expect(await drains.call("DELETE", where)).toMatchObject({
    status: 409,
    json: { error: "NODE_NOT_EMPTY", details: { pods: 1, backups: 1 } },
  });
  expect(await abandon()).toBe(0);
  await drains.call("POST", `${where}/evacuate`, {
    reason: "the host burnt",
    confirmFenced: true,
    onNoBackup: "mark-lost",
  });
  await bench.db.system.execute(sql`UPDATE cloud_pod_backups SET delete_requested_at = NULL WHERE id = ${backupId}`);
  expect(await drains.driveToEnd(dead)).toMatchObject({ state: "drained", counts: { moved: 1 } });
  await bench.db.system.execute(
    sql`UPDATE cloud_pod_backups SET delete_requested_at = now(), delete_reason = 'retention' WHERE id = ${backupId}`,
  );
  expect(await drains.call("DELETE", where)).toMatchObject({ status: 200, json: { backupsGone: 1 } });
  expect(await abandon()).toBe(1);
  expect(await abandon()).toBe(0);
  expect(await bench.backupOf(second)).toMatchObject({ state: "pruned", errorCode: "STORAGE_GONE" });
  // Another host sees this one, and it is the pod's last now.
  expect(await bench.backupOf(backupId)).toMatchObject({ state: "available", deleteRequestedAt: null });
  const [trace] = await bench.db.system.query(sql`
    SELECT (SELECT count(*) FROM audit_log WHERE action = 'backup.pruned' AND target_id = ${second} AND detail->>'reason' = 'STORAGE_GONE') AS audit,
      (SELECT count(*) FROM audit_log WHERE action = 'node.remove' AND target_id = ${dead.id} AND detail->>'backupsGone' = '1') AS removal,
      (SELECT string_agg(payload->>'subject', ',') FROM notifications WHERE tenant_id = ${bench.tenantId} AND dedupe_key = ${`backups-gone:${second}`}) AS news`);
  expect(trace).toEqual({ audit: 1n, removal: 1n, news: "A backup of shop is gone" });
});
