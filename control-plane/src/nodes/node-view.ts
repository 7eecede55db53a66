import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { emailOf } from "../security/actor-email.ts";
import { nodeNotFound } from "./find-node.ts";
import type { NodeState } from "./node-state.ts";

/** One resource that is promised to pods; CPU in cores, memory in MiB. */
export interface Promised {
  readonly total: number;
  readonly reserved: number;
  /** Decimal factor. */
  readonly overcommit: string;
  readonly allocatable: number;
  readonly allocated: number;
  /** What an order can still get; never negative. */
  readonly free: number;
}

/** A storage as one host sees it; sizes in GiB. */
export interface NodeStorage {
  readonly name: string;
  readonly type: string;
  readonly shared: boolean;
  readonly available: boolean;
  readonly holdsRootDisks: boolean;
  readonly holdsBackups: boolean;
  readonly totalGb: number;
  readonly usedGb: number;
  readonly allocatableGb: number;
  readonly allocatedGb: number;
  readonly freeGb: number;
}

/** A host as operators see it. */
export interface NodeView {
  readonly id: string;
  readonly name: string;
  readonly pveName: string | null;
  readonly cluster: string | null;
  readonly role: string;
  readonly region: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: NodeState;
  readonly stateSince: Date;
  readonly schedulable: boolean;
  readonly cordonReason: string | null;
  readonly cordonedAt: Date | null;
  /** When the host opens by itself; null: when somebody opens it. */
  readonly cordonedUntil: Date | null;
  readonly cordonedBy: string | null;
  readonly cordonedByEmail: string | null;
  readonly maintenanceNote: string | null;
  readonly defaultStorage: string | null;
  readonly backupStorage: string | null;
  readonly bridge: string;
  readonly pool: string | null;
  readonly templateVmid: number | null;
  readonly templateArchive: string | null;
  readonly version: number;
  readonly createdAt: Date;
  readonly removedAt: Date | null;
  readonly sessionConnected: boolean;
  readonly sessionSeenAt: Date | null;
  readonly lastHeartbeatAt: Date | null;
  readonly inventoryAt: Date | null;
  readonly agentVersion: string | null;
  readonly pveVersion: string | null;
  readonly capabilities: readonly string[];
  readonly quorate: boolean | null;
  readonly clockSkewMs: number | null;
  readonly cpuBusyBasisPoints: number | null;
  readonly load1Centi: number | null;
  readonly memoryAvailableMb: number | null;
  readonly spoolDepth: number | null;
  readonly spoolOldestAt: Date | null;
  readonly runningContainers: number | null;
  readonly certificateSerial: string | null;
  readonly certificateExpiresAt: Date | null;
  readonly cpu: Promised;
  readonly memoryMb: Promised;
  readonly conditions: readonly { readonly kind: string; readonly message: string; readonly since: Date }[];
  readonly storages: readonly NodeStorage[];
  readonly podCount: number;
}

// Lists of one host come as JSON, whose instants are texts.
type Row = Omit<NodeView, "conditions"> & {
  readonly conditions: readonly { kind: string; message: string; since: string }[];
};

const selectNodes: Sql = sql`
  SELECT n.id, n.name, n.pve_name AS "pveName", k.name AS cluster, n.role, n.region, n.labels, s.state, s.state_since AS "stateSince",
    n.schedulable, n.cordon_reason AS "cordonReason", n.cordoned_at AS "cordonedAt",
    n.cordoned_until AS "cordonedUntil", n.cordoned_by AS "cordonedBy", ${emailOf(sql`n.cordoned_by`)} AS "cordonedByEmail", n.maintenance_note AS "maintenanceNote",
    n.default_storage AS "defaultStorage", n.backup_storage AS "backupStorage", n.bridge, n.pool, n.template_vmid AS "templateVmid", n.template_archive AS "templateArchive",
    n.version, n.created_at AS "createdAt", n.removed_at AS "removedAt", s.session_connected AS "sessionConnected",
    s.session_seen_at AS "sessionSeenAt", s.last_heartbeat_at AS "lastHeartbeatAt", s.inventory_at AS "inventoryAt",
    s.agent_version AS "agentVersion", s.pve_version AS "pveVersion", s.capabilities, s.quorate,
    s.clock_skew_ms::float8 AS "clockSkewMs", s.cpu_busy_basis_points AS "cpuBusyBasisPoints", s.load1_centi AS "load1Centi",
    s.memory_available_mb AS "memoryAvailableMb", s.spool_depth::float8 AS "spoolDepth", s.spool_oldest_at AS "spoolOldestAt",
    s.running_containers AS "runningContainers", s.certificate_serial AS "certificateSerial",
    (SELECT max(not_after) FROM node_certificates WHERE node_id = n.id AND revoked_at IS NULL) AS "certificateExpiresAt",
    json_build_object('total', c.cpu_total, 'reserved', c.cpu_reserved, 'overcommit', c.cpu_overcommit::text, 'allocatable', c.cpu_allocatable,
      'allocated', c.cpu_allocated, 'free', greatest(0, c.cpu_allocatable - c.cpu_allocated)) AS cpu,
    json_build_object('total', c.memory_total_mb, 'reserved', c.memory_reserved_mb, 'overcommit', c.memory_overcommit::text,
      'allocatable', c.memory_allocatable_mb, 'allocated', c.memory_allocated_mb,
      'free', greatest(0, c.memory_allocatable_mb - c.memory_allocated_mb)) AS "memoryMb",
    coalesce((SELECT json_agg(json_build_object('kind', d.kind, 'message', d.message, 'since', d.since) ORDER BY d.kind)
      FROM node_conditions d WHERE d.node_id = n.id), '[]') AS conditions,
    coalesce((SELECT json_agg(json_build_object('name', g.name, 'type', g.type, 'shared', g.shared, 'available', v.available,
        'holdsRootDisks', g.holds_root_disks, 'holdsBackups', g.holds_backups, 'totalGb', g.total_gb, 'usedGb', g.used_gb, 'allocatableGb', g.allocatable_gb,
        'allocatedGb', g.allocated_gb, 'freeGb', greatest(0, g.allocatable_gb - g.allocated_gb)) ORDER BY g.name)
      FROM node_storages v JOIN storages g ON g.id = v.storage_id WHERE v.node_id = n.id), '[]') AS storages,
    (SELECT count(*)::integer FROM cloud_pods p WHERE p.node_id = n.id AND p.status <> 'deleted') AS "podCount"
  FROM nodes n JOIN node_status s ON s.node_id = n.id JOIN node_capacity c ON c.node_id = n.id LEFT JOIN clusters k ON k.id = n.cluster_id`;

function present(row: Row): NodeView {
  return {
    ...row,
    conditions: row.conditions.map((condition) => ({ ...condition, since: new Date(condition.since) })),
  };
}

/** Which hosts a list shows; removed ones only where their state is asked for. */
export interface NodeFilter {
  readonly state?: string | undefined;
  readonly region?: string | undefined;
  readonly role?: string | undefined;
  readonly limit: number;
  /** The last host of the page before; hosts that are gone share names. */
  readonly after?: { readonly name: string; readonly id: string } | undefined;
}

/** Hosts by name. */
export async function listNodes(db: Queryable, filter: NodeFilter): Promise<NodeView[]> {
  const rows = await db.query<Row>(sql`${selectNodes}
    WHERE n.removed_at IS ${filter.state === "removed" ? sql`NOT NULL` : sql`NULL`}
      AND (${filter.state ?? null}::text IS NULL OR s.state = ${filter.state ?? null})
      AND (${filter.region ?? null}::text IS NULL OR n.region = ${filter.region ?? null})
      AND (${filter.role ?? null}::text IS NULL OR n.role = ${filter.role ?? null})
      AND (${filter.after?.name ?? null}::text IS NULL OR (n.name, n.id) > (${filter.after?.name ?? null}, ${filter.after?.id ?? null}::uuid))
    ORDER BY n.name, n.id LIMIT ${filter.limit}`);
  return rows.map(present);
}

/** One host, removed ones too. @throws DomainError `not-found` NODE_NOT_FOUND. */
export async function readNode(db: Queryable, nodeId: string): Promise<NodeView> {
  const [row] = await db.query<Row>(sql`${selectNodes} WHERE n.id = ${nodeId}`);
  if (row === undefined) throw nodeNotFound();
  return present(row);
}

/** A pod on a host, as the host's page lists it. */
export interface PodOnNode {
  readonly id: string;
  readonly vmid: number;
  readonly name: string;
  readonly tenantId: string;
  readonly status: string;
  readonly observedPower: string;
}

/** What is on a host: its pods, and its templates by name. */
export async function readNodeContents(
  db: Queryable,
  nodeId: string,
): Promise<{ pods: PodOnNode[]; templates: string[] }> {
  const [pods, templates] = await Promise.all([
    db.query<PodOnNode>(sql`
      SELECT id, vmid, name, tenant_id AS "tenantId", status, observed_power AS "observedPower" FROM cloud_pods
      WHERE node_id = ${nodeId} AND status <> 'deleted' ORDER BY vmid`),
    db.query<{ name: string }>(sql`SELECT name FROM node_templates WHERE node_id = ${nodeId} ORDER BY name`),
  ]);
  return { pods, templates: templates.map((template) => template.name) };
}

/** One measurement of a host. */
export interface NodeSample {
  readonly at: Date;
  readonly cpuBusyBasisPoints: number;
  readonly load1Centi: number;
  readonly memoryTotalMb: number;
  readonly memoryAvailableMb: number;
}

/** Measurements since an instant, oldest first: one a minute, so that whoever names the instant bounds them. */
export async function readNodeSamples(db: Queryable, nodeId: string, since: Date): Promise<NodeSample[]> {
  return await db.query<NodeSample>(sql`
    SELECT at, cpu_busy_basis_points AS "cpuBusyBasisPoints", load1_centi AS "load1Centi", memory_total_mb AS "memoryTotalMb",
      memory_available_mb AS "memoryAvailableMb"
    FROM node_samples WHERE node_id = ${nodeId} AND at >= ${since} ORDER BY at`);
}

/** A container that we did not place where it was found. */
export interface UnmanagedContainer {
  readonly nodeId: string;
  readonly nodeName: string;
  readonly vmid: number;
  /** Set when it carries the mark of a pod that is not placed there. */
  readonly podId: string | null;
  /** cloudpods.agent.v1.ContainerObservation as protobuf JSON. */
  readonly observation: Readonly<Record<string, unknown>>;
  readonly firstSeenAt: Date;
  readonly lastSeenAt: Date;
  readonly sightings: number;
}

/** Containers on hosts that are nobody's; `after` is the last one of the page before. */
export async function listUnmanaged(
  db: Queryable,
  page: {
    readonly limit: number;
    readonly nodeId?: string | undefined;
    readonly after?: { nodeId: string; vmid: number } | undefined;
  },
): Promise<UnmanagedContainer[]> {
  return await db.query<UnmanagedContainer>(sql`
    SELECT u.node_id AS "nodeId", n.name AS "nodeName", u.vmid, u.pod_id AS "podId", u.observation, u.first_seen_at AS "firstSeenAt",
      u.last_seen_at AS "lastSeenAt", u.sightings
    FROM unmanaged_containers u JOIN nodes n ON n.id = u.node_id
    WHERE (${page.nodeId ?? null}::uuid IS NULL OR u.node_id = ${page.nodeId ?? null})
      AND (${page.after?.nodeId ?? null}::uuid IS NULL OR (u.node_id, u.vmid) > (${page.after?.nodeId ?? null}::uuid, ${page.after?.vmid ?? 0}))
    ORDER BY u.node_id, u.vmid LIMIT ${page.limit}`);
}
