import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { FleetSnapshot, NodeSnapshot, StorageSnapshot } from "./fleet-snapshot.ts";

type NodeRow = Omit<NodeSnapshot, "templates" | "defaultTemplate" | "storages"> & {
  readonly templateVmid: number | null;
  readonly templateArchive: string | null;
};
type StorageRow = StorageSnapshot & { readonly nodeId: string };

/** Reads what placement knows of every node that was not removed. Works under both logins. */
export async function readSnapshot(db: Queryable): Promise<FleetSnapshot> {
  const readAt = new Date();
  // Sent together: on a transaction's connection the three share one round trip.
  const [nodes, storages, templates] = await Promise.all([readNodes(db), readStorages(db), readTemplates(db)]);
  const storagesOf = Map.groupBy(storages, (storage) => storage.nodeId);
  const templatesOf = Map.groupBy(templates, (template) => template.nodeId);
  return {
    readAt,
    nodes: nodes.map(({ templateVmid, templateArchive, ...node }) => {
      const names = (templatesOf.get(node.id) ?? []).map((template) => template.name);
      return {
        ...node,
        templates: names,
        defaultTemplate: defaultTemplate(names, templateVmid, templateArchive),
        storages: storagesOf.get(node.id) ?? [],
      };
    }),
  };
}

async function readNodes(db: Queryable): Promise<NodeRow[]> {
  return await db.query<NodeRow>(sql`
    SELECT n.id, n.name, n.role, n.region, n.labels, n.schedulable, n.cordon_reason AS "cordonReason", st.state, st.quorate, st.capabilities,
      n.template_vmid AS "templateVmid", n.template_archive AS "templateArchive", n.default_storage AS "defaultStorage", n.bridge, n.pool,
      c.cpu_allocatable AS "cpuAllocatable", c.cpu_allocated AS "cpuAllocated",
      c.memory_allocatable_mb AS "memoryAllocatableMb", c.memory_allocated_mb AS "memoryAllocatedMb", c.memory_total_mb AS "memoryTotalMb",
      st.cpu_busy_basis_points AS "cpuBusyBasisPoints", st.memory_available_mb AS "memoryAvailableMb"
    FROM nodes n JOIN node_status st ON st.node_id = n.id JOIN node_capacity c ON c.node_id = n.id
    WHERE n.removed_at IS NULL`);
}

async function readStorages(db: Queryable): Promise<StorageRow[]> {
  return await db.query<StorageRow>(sql`
    SELECT ns.node_id AS "nodeId", s.id, s.name, s.shared, s.allocatable_gb AS "allocatableGb", s.allocated_gb AS "allocatedGb"
    FROM node_storages ns JOIN storages s ON s.id = ns.storage_id
    WHERE ns.available AND s.holds_root_disks`);
}

async function readTemplates(db: Queryable): Promise<{ readonly nodeId: string; readonly name: string }[]> {
  return await db.query(sql`SELECT node_id AS "nodeId", name FROM node_templates`);
}

/**
 * What a pod that names no template is made from: the node's settings as far as the node really has them,
 * a template container before an archive since cloning is faster; without a setting the first one there is.
 */
function defaultTemplate(names: readonly string[], vmid: number | null, archive: string | null): string | null {
  if (vmid !== null && names.includes(`ct:${vmid}`)) return `ct:${vmid}`;
  if (archive !== null && names.includes(archive)) return archive;
  if (vmid !== null || archive !== null) return null;
  const sorted = names.toSorted(
    (a, b) => Number(b.startsWith("ct:")) - Number(a.startsWith("ct:")) || (a < b ? -1 : 1),
  );
  return sorted[0] ?? null;
}
