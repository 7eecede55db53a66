import { newId } from "@cloudpods/shared/ids";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { TestDatabase } from "./postgres.ts";

/** A pod that lies in the database only, with one finished task and its event. */
export interface MadePod {
  readonly id: string;
  readonly vmid: number;
  readonly taskId: string;
}

/** No two living pods have one: above those that the database gives to orders, below those that tests choose. */
let lastVmid = 700_000;

/** Writes a pod of a tenant as it is after its order: for tests of who may see it, not of its life. */
export async function makePod(
  db: Pick<TestDatabase, "system">,
  tenantId: string,
  wish: { hostname: string },
): Promise<MadePod> {
  const [id, taskId, vmid] = [newId(), newId(), (lastVmid += 1)];
  await db.system.transaction(async (tx) => {
    await tx.execute(sql`
      INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, status, cores, memory_mb, disk_gb, mac)
      VALUES (${id}, ${tenantId}, ${vmid}, ${wish.hostname}, ${wish.hostname}, 'local', 'active', 1, 512, 4, 'bc:24:11:00:00:01')`);
    await tx.execute(sql`
      INSERT INTO cloud_pod_provisioning_tasks (id, tenant_id, pod_id, type, state, step, deadline_at, requested_by, finished_at)
      VALUES (${taskId}, ${tenantId}, ${id}, 'create', 'failed', 'create-container', now(), 'test', now())`);
  });
  return { id, vmid, taskId };
}
