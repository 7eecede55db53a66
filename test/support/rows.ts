import { newId } from "../../shared/src/ids.ts";
import type { Database } from "../../control-plane/src/platform/database.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import { seedPlans } from "../../control-plane/src/plans/seed-plans.ts";

/** A tenant with room for many pods. */
export async function aTenant(db: Database, limits: { pods?: number } = {}): Promise<{ id: string }> {
  const id = newId();
  await db.transaction(async (tx) => {
    await seedPlans(tx);
    await tx.execute(sql`INSERT INTO tenants (id, slug, name) VALUES (${id}, ${`t-${id}`}, 'Test tenant')`);
    await tx.execute(sql`
      INSERT INTO cloud_pod_quotas (tenant_id, max_cloud_pods, max_cpu_cores, max_ram_mb, max_disk_gb)
      VALUES (${id}, ${limits.pods ?? 1_000}, 10000, 10000000, 1000000)`);
  });
  return { id };
}

/** A host that is online and has room: 32 cores, 64 GB, 2 TB, template 9000. */
export async function anOnlineNode(
  db: Database,
  size: { cores?: number; memoryMb?: number; diskGb?: number } = {},
): Promise<{ id: string; name: string }> {
  const id = newId();
  const name = `node-${id.slice(-12)}`;
  const storageId = newId();
  await db.transaction(async (tx) => {
    await tx.execute(sql`
      INSERT INTO nodes (id, name, pve_name, region, default_storage, template_vmid) VALUES (${id}, ${name}, ${name}, 'local', 'local-lvm', 9000)`);
    await tx.execute(sql`
      INSERT INTO node_status (node_id, state, session_epoch, session_connected, session_seen_at, last_heartbeat_at, quorate, capabilities)
      VALUES (${id}, 'online', 1, true, now(), now(), true, ${["ensure_container", "ensure_power", "ensure_absent", "reboot", "inspect"]})`);
    await tx.execute(
      sql`INSERT INTO node_capacity (node_id, cpu_total, memory_total_mb) VALUES (${id}, ${size.cores ?? 32}, ${size.memoryMb ?? 65_536})`,
    );
    await tx.execute(
      sql`INSERT INTO storages (id, node_id, name, type, total_gb) VALUES (${storageId}, ${id}, 'local-lvm', 'lvmthin', ${size.diskGb ?? 2_000})`,
    );
    await tx.execute(sql`INSERT INTO node_storages (node_id, storage_id) VALUES (${id}, ${storageId})`);
    await tx.execute(sql`INSERT INTO node_templates (node_id, name) VALUES (${id}, 'ct:9000')`);
  });
  return { id, name };
}
