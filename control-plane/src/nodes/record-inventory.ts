import { ContainerObservation, Power, type Inventory } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { isUuid } from "@cloudpods/shared/ids";
import type { Database, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { keepInventory } from "./latest-inventory.ts";
import { recordStorages } from "./record-storages.ts";
import { SessionSuperseded, type SessionRef } from "./session-fence.ts";

/** A pod whose address changed. */
export interface AddressedPod {
  readonly id: string;
  readonly tenantId: string;
  readonly mac: string;
}

/** What the inventory tells other parts, in its transaction. */
export interface InventoryHooks {
  readonly onAddress: (tx: Transaction, pod: AddressedPod, ip: string) => Promise<void>;
  /** Told of what was left out: inventories by the first two reasons, observations of one pod by the others. */
  readonly onDropped?: (reason: DropReason, count: number) => void;
}

/** Why what a host reported changes nothing. */
export type DropReason = "other_session" | "not_trusted_by_host" | "not_placed_here" | "other_generation" | "older";

/**
 * Takes over what a host has: storages, templates, the power and addresses of its pods, and containers
 * that are not ours. Only the host's present session may say so, and of a pod only the host and the
 * generation of its placement. An inventory that the host does not trust itself changes nothing.
 *
 * @returns false when it was made for another session or is not trusted.
 * @throws SessionSuperseded
 */
export async function recordInventory(
  db: Database,
  session: SessionRef,
  inventory: Inventory,
  hooks: InventoryHooks,
): Promise<boolean> {
  if (inventory.sessionEpoch !== 0n && inventory.sessionEpoch !== session.epoch) {
    hooks.onDropped?.("other_session", 1);
    return false;
  }
  return await db.transaction(
    async (tx) => {
      if (inventory.known) {
        await recordStorages(tx, session.nodeId, inventory.storages);
        await recordTemplates(tx, session.nodeId, inventory);
        await chooseDefaults(tx, session.nodeId, inventory);
        await recordPods(tx, session.nodeId, inventory, hooks);
        await recordStrangers(tx, session.nodeId, inventory);
        await keepInventory(tx, session.nodeId, inventory);
      } else hooks.onDropped?.("not_trusted_by_host", 1);
      // At last, so that a host's status is not held for all of it. Should a newer session have begun, nothing of it stays.
      const held = await tx.execute(sql`
      UPDATE node_status SET quorate = ${inventory.quorate}, inventory_at = CASE WHEN ${inventory.known} THEN now() ELSE inventory_at END
      WHERE node_id = ${session.nodeId} AND session_epoch = ${session.epoch}`);
      if (held === 0) throw new SessionSuperseded();
      return inventory.known;
    },
    { prepares: true },
  );
}

/** Names of the templates that a host has: "ct:<vmid>" or a volume id. */
export function templateNames(inventory: Pick<Inventory, "containers" | "templateVolumeIds">): string[] {
  const containers = inventory.containers
    .filter((container) => container.template)
    .map((container) => `ct:${container.vmid}`);
  return [...new Set([...containers, ...inventory.templateVolumeIds])].toSorted();
}

async function recordTemplates(tx: Transaction, nodeId: string, inventory: Inventory): Promise<void> {
  const names = templateNames(inventory);
  await Promise.all([
    tx.execute(sql`DELETE FROM node_templates WHERE node_id = ${nodeId} AND name <> ALL(${names})`),
    tx.execute(sql`
      INSERT INTO node_templates (node_id, name) SELECT ${nodeId}, name FROM unnest(${names}::text[]) AS name
      ON CONFLICT (node_id, name) DO UPDATE SET seen_at = now()`),
  ]);
}

/**
 * Gives a host that has none yet its storage for root disks (the largest) and its template: the container
 * with the lowest id, else an archive. What people have chosen stays, also when they chose none.
 */
async function chooseDefaults(tx: Transaction, nodeId: string, inventory: Inventory): Promise<void> {
  const [largest] = inventory.storages
    .filter((storage) => storage.available && storage.content.includes("rootdir"))
    .toSorted((a, b) => b.totalGb - a.totalGb || a.storage.localeCompare(b.storage));
  const template = Math.min(
    ...inventory.containers.filter((container) => container.template).map((container) => container.vmid),
  );
  const archive = inventory.templateVolumeIds.toSorted().at(-1);
  await tx.execute(sql`
    UPDATE nodes SET
      default_storage = CASE WHEN storage_is_chosen THEN default_storage ELSE coalesce(default_storage, ${largest?.storage ?? null}) END,
      template_vmid = CASE WHEN template_archive IS NULL AND NOT template_is_chosen
        THEN coalesce(template_vmid, ${Number.isFinite(template) ? template : null}::integer) ELSE template_vmid END,
      template_archive = CASE WHEN template_vmid IS NULL AND NOT template_is_chosen AND ${!Number.isFinite(template)}
        THEN coalesce(template_archive, ${archive ?? null}) ELSE template_archive END
    WHERE id = ${nodeId} AND ((default_storage IS NULL AND NOT storage_is_chosen)
      OR (template_vmid IS NULL AND template_archive IS NULL AND NOT template_is_chosen))`);
}

/** Power as the pods table has it. */
export function observedPower(power: Power): "running" | "stopped" | "unknown" {
  if (power === Power.POWER_RUNNING) return "running";
  return power === Power.POWER_STOPPED ? "stopped" : "unknown";
}

async function recordPods(tx: Transaction, nodeId: string, inventory: Inventory, hooks: InventoryHooks): Promise<void> {
  const marked = inventory.containers.filter((container) => isUuid(container.podId) && !container.template);
  await recordObservations(tx, nodeId, marked, Number(inventory.observedAtMs), hooks);
  // Not there although it should be: what it does is not known. The reconciler decides what follows.
  await tx.execute(sql`
    UPDATE cloud_pods SET observed_power = 'unknown', observed_at = now()
    WHERE node_id = ${nodeId} AND status IN ('active', 'suspended') AND observed_power <> 'unknown'
      AND observed_at < to_timestamp(${Number(inventory.observedAtMs)}::float8 / 1000) AND id <> ALL(${marked.map((container) => container.podId)}::uuid[])`);
}

/**
 * Stores what a host saw of pods that are placed there, under the generation of their placement; other
 * and older observations are left out. `observedAtMs`: ms since 1970 UTC by the host's disciplined clock.
 */
export async function recordObservations(
  tx: Transaction,
  nodeId: string,
  containers: readonly ContainerObservation[],
  observedAtMs: number,
  hooks: InventoryHooks,
): Promise<void> {
  if (containers.length === 0) return;
  const seen = JSON.stringify(
    containers.map(({ vmid, podId, generation, power, ip }) => ({
      vmid,
      pod_id: podId,
      generation: String(generation),
      power: observedPower(power),
      ip,
    })),
  );
  const told = await tx.query<AddressedPod & { ip: string; dropped: DropReason | null }>(sql`
    WITH seen AS (SELECT * FROM jsonb_to_recordset(${seen}::jsonb) AS x(vmid integer, pod_id uuid, generation bigint, power text, ip text)),
    stored AS (
      UPDATE cloud_pods p SET observed_power = seen.power, observed_at = least(now(), to_timestamp(${observedAtMs}::float8 / 1000))
      FROM seen
      WHERE p.id = seen.pod_id AND p.vmid = seen.vmid AND p.node_id = ${nodeId} AND p.generation = seen.generation AND p.status <> 'deleted'
        AND (p.observed_at IS NULL OR p.observed_at <= to_timestamp(${observedAtMs}::float8 / 1000))
      RETURNING p.id, p.tenant_id AS "tenantId", p.mac, p.ip AS known, seen.ip)
    SELECT s.id, s."tenantId", s.mac, s.ip, CASE
        WHEN s.id IS NOT NULL THEN NULL WHEN p.id IS NULL THEN 'not_placed_here'
        WHEN p.generation <> seen.generation THEN 'other_generation' ELSE 'older' END AS dropped
    FROM seen LEFT JOIN stored s ON s.id = seen.pod_id
      LEFT JOIN cloud_pods p ON p.id = seen.pod_id AND p.vmid = seen.vmid AND p.node_id = ${nodeId} AND p.status <> 'deleted'
    WHERE s.id IS NULL OR (s.ip <> '' AND s.ip IS DISTINCT FROM s.known)`);
  for (const { dropped, ip, ...pod } of told) {
    if (dropped === null) await hooks.onAddress(tx, pod, ip);
    else hooks.onDropped?.(dropped, 1);
  }
}

/** Containers that carry no mark of a pod with a place here, and ids that are taken. */
async function recordStrangers(tx: Transaction, nodeId: string, inventory: Inventory): Promise<void> {
  const containers = inventory.containers.filter((container) => !container.template && container.lock !== "create");
  const seen = JSON.stringify(
    containers.map((container) => ({
      vmid: container.vmid,
      pod_id: isUuid(container.podId) ? container.podId : null,
      observation: ContainerObservation.toJSON(container),
    })),
  );
  const strangers = await tx.query<{ vmid: number }>(sql`
    INSERT INTO unmanaged_containers (node_id, vmid, pod_id, observation)
    SELECT ${nodeId}, x.vmid, x.pod_id, x.observation FROM jsonb_to_recordset(${seen}::jsonb) AS x(vmid integer, pod_id uuid, observation jsonb)
    WHERE NOT EXISTS (SELECT FROM cloud_pods p WHERE p.id = x.pod_id AND p.vmid = x.vmid AND p.node_id = ${nodeId} AND p.status <> 'deleted')
      AND NOT EXISTS (SELECT FROM node_claims c WHERE c.pod_id = x.pod_id AND c.node_id = ${nodeId})
    ON CONFLICT (node_id, vmid) DO UPDATE SET observation = excluded.observation, last_seen_at = now(), pod_id = excluded.pod_id,
      sightings = CASE WHEN unmanaged_containers.pod_id IS NOT DISTINCT FROM excluded.pod_id THEN unmanaged_containers.sightings + 1 ELSE 1 END,
      first_seen_at = CASE WHEN unmanaged_containers.pod_id IS NOT DISTINCT FROM excluded.pod_id THEN unmanaged_containers.first_seen_at ELSE now() END
    RETURNING vmid`);
  const templates = inventory.containers.filter((container) => container.template).map((container) => container.vmid);
  const taken = [...new Set([...strangers.map((stranger) => stranger.vmid), ...templates, ...inventory.foreignVmids])];
  await Promise.all([
    tx.execute(sql`
      DELETE FROM unmanaged_containers WHERE node_id = ${nodeId} AND vmid <> ALL(${strangers.map((stranger) => stranger.vmid)}::integer[])`),
    tx.execute(sql`
      INSERT INTO reserved_vmids (vmid, seen_on) SELECT vmid, ${nodeId} FROM unnest(${taken}::integer[]) AS vmid
      WHERE NOT EXISTS (SELECT FROM reserved_vmids r WHERE r.vmid = vmid.vmid) AND NOT EXISTS (SELECT FROM cloud_pods p WHERE p.vmid = vmid.vmid)
      ORDER BY vmid ON CONFLICT DO NOTHING`),
  ]);
}
