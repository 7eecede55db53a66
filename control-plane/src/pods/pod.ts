import type { PodStatus } from "@cloudpods/shared/pod-lifecycle";
import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { prepared, sql, type Sql } from "../platform/sql.ts";
import type { PlacementVerdict } from "../scheduling/verdict.ts";
import type { AdoptedNetwork } from "./container-spec.ts";
import { openHoldsOf, type OpenHold } from "./open-holds.ts";
import type { PlacementWish } from "./placement-wish.ts";

/** A pod as its row has it. Sizes are what is wanted; what the host confirmed is in cloud_pod_allocations. */
export interface Pod {
  readonly id: string;
  readonly tenantId: string;
  readonly vmid: number;
  readonly name: string;
  readonly hostname: string;
  readonly domain: string | null;
  readonly region: string;
  readonly status: PodStatus;
  readonly desiredPower: "running" | "stopped";
  readonly observedPower: "running" | "stopped" | "unknown";
  readonly observedAt: Date | null;
  readonly nodeId: string | null;
  readonly nodeName: string | null;
  readonly generation: bigint;
  readonly revision: bigint;
  readonly planCode: string | null;
  readonly billingMode: "plan" | "metered";
  readonly subscriptionId: string | null;
  readonly cores: number;
  readonly memoryMb: number;
  readonly swapMb: number;
  readonly diskGb: number;
  readonly storage: string | null;
  readonly bridge: string | null;
  readonly pool: string | null;
  readonly template: string | null;
  readonly nesting: boolean;
  readonly rateLimitKibPerSecond: number;
  readonly mac: string;
  readonly ip: string | null;
  readonly sshKeys: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** Of pods that are made from a backup instead of a template. */
  readonly sourceBackupId: string | null;
  readonly sourceVolumeId: string | null;
  /** Network and resolver of a container that was adopted; null: as we make them. */
  readonly adoptedNetwork: AdoptedNetwork | null;
  /** Since when its host shows no container of it. */
  readonly containerMissingSince: Date | null;
  readonly placementRequest: PlacementWish;
  /** Empty while the pod has no place. */
  readonly placementVerdict: Partial<PlacementVerdict>;
  /** What holds it back, oldest first. Read with the row and not locked with it: to be shown, not to decide on. */
  readonly holds: readonly OpenHold[];
  readonly lastErrorCode: string | null;
  readonly lastErrorMessage: string | null;
  readonly version: number;
  readonly orderedAt: Date;
  readonly activatedAt: Date | null;
  readonly deletionRequestedAt: Date | null;
  readonly deletedAt: Date | null;
}

const podColumns: Sql = sql`p.id, p.tenant_id AS "tenantId", p.vmid, p.name, p.hostname, p.domain, p.region, p.status,
  p.desired_power AS "desiredPower", p.observed_power AS "observedPower", p.observed_at AS "observedAt", p.node_id AS "nodeId",
  n.name AS "nodeName", p.generation, p.revision, p.plan_code AS "planCode", p.billing_mode AS "billingMode",
  p.subscription_id AS "subscriptionId", p.cores, p.memory_mb AS "memoryMb", p.swap_mb AS "swapMb", p.disk_gb AS "diskGb",
  p.storage, p.bridge, p.pool, p.template, p.nesting, p.rate_limit_kib_per_second AS "rateLimitKibPerSecond", p.mac, p.ip,
  p.ssh_keys AS "sshKeys", p.labels, p.source_backup_id AS "sourceBackupId", p.source_volume_id AS "sourceVolumeId", p.adopted_network AS "adoptedNetwork",
  p.container_missing_since AS "containerMissingSince", p.placement_request AS "placementRequest", p.placement_verdict AS "placementVerdict",
  ${openHoldsOf} AS holds, p.last_error_code AS "lastErrorCode", p.last_error_message AS "lastErrorMessage", p.version, p.ordered_at AS "orderedAt",
  p.activated_at AS "activatedAt", p.deletion_requested_at AS "deletionRequestedAt", p.deleted_at AS "deletedAt"`;

/** SELECT of whole pods; add WHERE, ORDER BY and LIMIT. `p` is the pod, `n` its node. */
export const selectPods: Sql = sql`SELECT ${podColumns} FROM cloud_pods p LEFT JOIN nodes n ON n.id = p.node_id`;

/**
 * A pod by UUID or VMID. Under the tenants' login only the tenant's own can be found. One that was deleted is found by its
 * UUID alone: its VMID may be another's by now.
 * @throws DomainError `POD_NOT_FOUND`
 */
export async function findPod(tx: Queryable, tenantId: string, reference: string): Promise<Pod> {
  return await findOne(tx, sql`${selectPods} WHERE p.tenant_id = ${tenantId} AND ${referenceMatches(reference)}`);
}

/** As `findPod`, and keeps the row locked to the end of the transaction. */
export async function lockPod(tx: Queryable, tenantId: string, reference: string): Promise<Pod> {
  return await findOne(
    tx,
    sql`${selectPods} WHERE p.tenant_id = ${tenantId} AND ${referenceMatches(reference)} FOR UPDATE OF p`,
  );
}

/** As `findPod`, for operators; only under the owner's login. */
export async function findPodOfAnyTenant(tx: Queryable, reference: string): Promise<Pod> {
  return await findOne(tx, sql`${selectPods} WHERE ${referenceMatches(reference)}`);
}

/** The pod of a task, locked. Tasks outlive nothing: the pod is there. */
export async function lockPodById(tx: Queryable, id: string): Promise<Pod> {
  return await findOne(tx, prepared(sql`${selectPods} WHERE p.id = ${id} FOR UPDATE OF p`));
}

async function findOne(tx: Queryable, statement: Sql): Promise<Pod> {
  const [pod] = await tx.query<Pod>(statement);
  if (pod === undefined) throw new DomainError("not-found", "POD_NOT_FOUND", "There is no such pod.");
  return pod;
}

function referenceMatches(reference: string): Sql {
  const isVmid = /^[0-9]{1,9}$/.test(reference);
  return isVmid ? sql`p.vmid = ${Number(reference)} AND p.status <> 'deleted'` : sql`p.id = ${reference}`;
}
