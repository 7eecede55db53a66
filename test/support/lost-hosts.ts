import { Power } from "../../shared/gen/cloudpods/agent/v1/agent_gateway.ts";
import { newId } from "../../shared/src/ids.ts";
import { sql } from "../../control-plane/src/platform/sql.ts";
import type { Pod } from "../../control-plane/src/pods/pod.ts";
import type { BenchNode, MoveWorkbench } from "./move-workbench.ts";

/** The host is gone: it answers nothing, and the watch has seen it. Its containers run on, as in a partition, unless it `dies`. */
export async function vanish(bench: MoveWorkbench, node: BenchNode, dies = true): Promise<void> {
  bench.hosts.away.add(node.id);
  if (dies) powerOff(bench, node);
  await bench.db.system.execute(sql`
    UPDATE node_status SET state = 'offline', state_since = now(), session_connected = false, session_seen_at = now() - interval '1 minute',
      last_heartbeat_at = now() - interval '1 minute' WHERE node_id = ${node.id}`);
}

function powerOff(bench: MoveWorkbench, node: BenchNode): void {
  const containers = bench.hosts.containers.get(node.id);
  for (const [vmid, container] of containers ?? []) containers?.set(vmid, { ...container, power: Power.POWER_STOPPED });
}

/** The host answers again, and the watch has seen it. */
export async function comeBack(bench: MoveWorkbench, node: BenchNode): Promise<void> {
  bench.hosts.away.delete(node.id);
  await bench.db.system.execute(sql`
    UPDATE node_status SET state = 'online', state_since = now(), session_connected = true, session_seen_at = now(), last_heartbeat_at = now()
    WHERE node_id = ${node.id}`);
}

/** A backup of the pod as it is now, on the storage that all hosts see, made so long ago. */
export async function backUp(bench: MoveWorkbench, pod: Pod, node: BenchNode, ageSeconds: number): Promise<string> {
  const id = newId();
  const volumeId = `backups:backup/${id}.tar.zst`;
  const container = bench.hosts.at(node.id, pod.vmid);
  if (container !== undefined) bench.hosts.archives.set(volumeId, container);
  await bench.db.system.execute(sql`
    INSERT INTO cloud_pod_backups (id, tenant_id, pod_id, node_id, storage_id, storage, kind, mode, state, volume_id, size_bytes, generation, vmid, spec, started_at, finished_at)
    SELECT ${id}, ${pod.tenantId}, ${pod.id}, ${node.id}, s.id, s.name, 'manual', 'stop', 'available', ${volumeId}, 1, ${pod.generation}, ${pod.vmid}, '{}',
      now() - ${ageSeconds} * interval '1 s', now() - ${ageSeconds} * interval '1 s'
    FROM storages s WHERE s.node_id = ${node.id} AND s.name = 'backups'`);
  return id;
}
