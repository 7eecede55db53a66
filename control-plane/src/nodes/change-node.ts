import { DomainError } from "@cloudpods/shared/errors";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { nodeNotFound } from "./find-node.ts";
import { appendNodeEvents } from "./node-events.ts";

/** Who changes a host, and the version that he decided on. */
export interface NodeChangeBy {
  readonly actor: Actor;
  readonly requestId: string | undefined;
}

/** Settings of a host; absent members stay as they are, null empties them. */
export interface NodeChanges {
  readonly labels?: Readonly<Record<string, string>> | undefined;
  readonly cpuReserved?: number | undefined;
  readonly cpuOvercommit?: number | undefined;
  readonly memoryReservedMb?: number | undefined;
  readonly memoryOvercommit?: number | undefined;
  readonly defaultStorage?: string | null | undefined;
  readonly backupStorage?: string | null | undefined;
  readonly bridge?: string | undefined;
  readonly pool?: string | null | undefined;
  readonly templateVmid?: number | null | undefined;
  readonly templateArchive?: string | null | undefined;
  readonly maintenanceNote?: string | null | undefined;
}

/** A host that may still be changed, with its row locked. */
export interface LockedNode {
  readonly version: number;
  readonly name: string;
  /** False: it is cordoned. */
  readonly schedulable: boolean;
}

/** @throws DomainError `not-found` NODE_NOT_FOUND, also of one that was removed */
export async function lockNode(tx: Transaction, nodeId: string): Promise<LockedNode> {
  const [node] = await tx.query<LockedNode>(sql`
    SELECT version, name, schedulable FROM nodes WHERE id = ${nodeId} AND removed_at IS NULL FOR NO KEY UPDATE`);
  if (node === undefined) throw nodeNotFound();
  return node;
}

/**
 * Changes settings of a locked host. Promises that were made stay valid when less may be promised now:
 * the condition CapacityBelowAllocation shows it.
 * @throws DomainError `invalid` STORAGE_NOT_ON_NODE.
 */
export async function changeNode(
  tx: Transaction,
  nodeId: string,
  changes: NodeChanges,
  by: NodeChangeBy,
): Promise<void> {
  await refuseForeignStorage(tx, nodeId, changes, "defaultStorage");
  await refuseForeignStorage(tx, nodeId, changes, "backupStorage");
  await tx.execute(sql`
    UPDATE nodes SET
      labels = coalesce(${changes.labels === undefined ? null : JSON.stringify(changes.labels)}::jsonb, labels),
      bridge = coalesce(${changes.bridge ?? null}, bridge),
      default_storage = CASE WHEN ${changes.defaultStorage !== undefined} THEN ${changes.defaultStorage ?? null} ELSE default_storage END,
      backup_storage = CASE WHEN ${changes.backupStorage !== undefined} THEN ${changes.backupStorage ?? null} ELSE backup_storage END,
      pool = CASE WHEN ${changes.pool !== undefined} THEN ${changes.pool ?? null} ELSE pool END,
      template_vmid = CASE WHEN ${changes.templateVmid !== undefined} THEN ${changes.templateVmid ?? null}::integer ELSE template_vmid END,
      template_archive = CASE WHEN ${changes.templateArchive !== undefined} THEN ${changes.templateArchive ?? null} ELSE template_archive END,
      storage_is_chosen = storage_is_chosen OR ${changes.defaultStorage !== undefined},
      template_is_chosen = template_is_chosen OR ${changes.templateVmid !== undefined || changes.templateArchive !== undefined},
      maintenance_note = CASE WHEN ${changes.maintenanceNote !== undefined} THEN ${changes.maintenanceNote ?? null} ELSE maintenance_note END,
      version = version + 1
    WHERE id = ${nodeId}`);
  await tx.execute(sql`
    UPDATE node_capacity SET
      cpu_reserved = coalesce(${changes.cpuReserved ?? null}, cpu_reserved), cpu_overcommit = coalesce(${changes.cpuOvercommit ?? null}, cpu_overcommit),
      memory_reserved_mb = coalesce(${changes.memoryReservedMb ?? null}, memory_reserved_mb),
      memory_overcommit = coalesce(${changes.memoryOvercommit ?? null}, memory_overcommit)
    WHERE node_id = ${nodeId}`);
  await recordChange(tx, nodeId, by, {
    action: "node.change",
    kind: "SETTINGS_CHANGED",
    message: `changed: ${Object.keys(changes).join(", ")}`,
    detail: { ...changes },
  });
}

const storageUses = {
  defaultStorage: { what: "root disks", holds: sql`s.holds_root_disks` },
  backupStorage: { what: "backups", holds: sql`s.holds_backups` },
} as const;

async function refuseForeignStorage(
  tx: Transaction,
  nodeId: string,
  changes: NodeChanges,
  member: keyof typeof storageUses,
): Promise<void> {
  const storage = changes[member];
  if (storage === undefined || storage === null) return;
  const { what, holds } = storageUses[member];
  const [known] = await tx.query(sql`
    SELECT FROM node_storages v JOIN storages s ON s.id = v.storage_id WHERE v.node_id = ${nodeId} AND s.name = ${storage} AND ${holds}`);
  if (known !== undefined) return;
  throw new DomainError("invalid", "STORAGE_NOT_ON_NODE", `The node has no storage "${storage}" for ${what}.`, {
    errors: [{ pointer: `/${member}`, detail: `not a storage for ${what} of this node` }],
  });
}

/** Why nothing new shall be placed on a host, and until when. */
export interface Cordon {
  readonly reason: string;
  /** The host opens by itself then; undefined: when somebody opens it. */
  readonly until: Date | undefined;
}

/**
 * Stops new placements on a locked host; what runs there stays. Doing it again changes reason and end.
 * @throws DomainError `NODE_DRAINING` for an end while the host is being emptied
 */
export async function cordonNode(
  tx: Transaction,
  nodeId: string,
  { reason, until }: Cordon,
  by: NodeChangeBy,
): Promise<void> {
  if (until !== undefined) await refuseWhileDraining(tx, nodeId);
  await tx.execute(sql`
    UPDATE nodes SET schedulable = false, cordon_reason = ${reason}, cordoned_at = coalesce(cordoned_at, now()),
      cordoned_until = ${until ?? null}, cordoned_by = ${`${by.actor.kind}:${by.actor.id}`}, version = version + 1 WHERE id = ${nodeId}`);
  await recordChange(tx, nodeId, by, {
    action: "node.cordon",
    kind: "CORDONED",
    message: until === undefined ? reason : `${reason} (until ${until.toISOString()})`,
    detail: { reason, until: until?.toISOString() ?? null },
  });
}

/**
 * Allows new placements on a locked host again.
 * @throws DomainError `NODE_DRAINING` while the host is being emptied: what is placed there would have to go again
 */
export async function uncordonNode(
  tx: Transaction,
  nodeId: string,
  reason: string | undefined,
  by: NodeChangeBy,
): Promise<void> {
  await refuseWhileDraining(tx, nodeId);
  await tx.execute(sql`
    UPDATE nodes SET schedulable = true, cordon_reason = NULL, cordoned_at = NULL, cordoned_until = NULL, cordoned_by = NULL,
      version = version + 1 WHERE id = ${nodeId}`);
  await recordChange(tx, nodeId, by, {
    action: "node.uncordon",
    kind: "UNCORDONED",
    message: reason ?? "open for new pods",
    detail: { reason },
  });
}

async function refuseWhileDraining(tx: Transaction, nodeId: string): Promise<void> {
  const draining = await tx.query(sql`SELECT FROM node_drains WHERE node_id = ${nodeId} AND finished_at IS NULL`);
  if (draining.length > 0)
    throw new DomainError("wrong-state", "NODE_DRAINING", "The node is being drained or evacuated; cancel that first.");
}

/** Writes a change into the host's history and into the audit log. */
export async function recordChange(
  tx: Transaction,
  nodeId: string,
  by: NodeChangeBy,
  change: {
    readonly action: string;
    readonly kind: string;
    readonly message: string;
    readonly detail: Readonly<Record<string, unknown>>;
  },
): Promise<void> {
  await appendNodeEvents(tx, [
    { nodeId, kind: change.kind, message: change.message, detail: { ...change.detail, by: by.actor.id } },
  ]);
  await recordAudit(tx, {
    ...by,
    tenantId: undefined,
    action: change.action,
    targetType: "node",
    targetId: nodeId,
    detail: change.detail,
  });
}
