import { Power, type ContainerObservation } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import { requireBudgetLeft } from "../budgets/require-budget-left.ts";
import { requireNoRestore } from "../nodes/declare-restored.ts";
import { appendNodeEvents } from "../nodes/node-events.ts";
import { readPlan } from "../plans/resolve-plan.ts";
import { violatedConstraint, type Queryable, type Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { recordAllocation } from "../pods/allocations.ts";
import { powerDeadlineMs } from "../pods/change-power.saga.ts";
import { changePodStatus } from "../pods/change-status.ts";
import { isFreeToRun } from "../pods/holds.ts";
import { nextGeneration } from "../pods/next-generation.ts";
import { requirePlanFree } from "../pods/plan-limits.ts";
import { lockPodById, type Pod } from "../pods/pod.ts";
import { quotaOf } from "../pods/release-pod.ts";
import { requirePriced } from "../pods/require-priced.ts";
import { reserveQuota } from "../quotas/reserve-quota.ts";
import { claimInPlace } from "../scheduling/claim-in-place.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { createTask } from "../tasks/create-task.ts";
import type { Task } from "../tasks/task.ts";

/** Where a host shows the container of a pod that was given up, with the mark that was in force then. */
export interface FoundPod {
  readonly nodeId: string;
  readonly node: string;
  readonly container: Pick<ContainerObservation, "power" | "storage">;
}

/** Who wants it back. */
export interface TakingBack {
  readonly actor: Actor;
  readonly requestId: string;
  readonly now: Date;
}

/** A place on the host; `isKept`: its room was held since the pod was given up. */
interface Room {
  readonly isKept: boolean;
  readonly storageId: string;
  readonly storage: string;
}

/**
 * A pod that was given up with its host is that host's again, because the host is back and has its container: the same pod,
 * with what its guest wrote last. It counts and is paid for from now on, as after an order; the time without it costs
 * nothing. It gets a place of a new generation, under which its power is set as wanted. The pod's row is locked, and the
 * host's newest inventory shows the container.
 * @throws DomainError `RESTORE_IN_PROGRESS`, `NODE_NOT_ONLINE`, `COPY_ELSEWHERE`, `ADDRESS_CONFLICT`, `MAC_CONFLICT`, `BUDGET_EXHAUSTED`,
 *   `QUOTA_EXCEEDED`, `TENANT_CLOSED`, `NOT_PRICED`, `PLAN_LIMIT_REACHED`, `STORAGE_UNKNOWN`, `NO_CAPACITY`, `POD_BUSY`
 */
export async function takeBack(tx: Transaction, pod: Pod, found: FoundPod, by: TakingBack): Promise<Task> {
  await requireNoRestore(tx);
  const region = await regionOfOnline(tx, found);
  await requireOnlyOne(tx, pod, found);
  await requireAddressFree(tx, pod, region);
  const isSuspended = await hasSuspendHold(tx, pod.id);
  await countAgain(tx, pod, isSuspended);
  const room = await findRoom(tx, pod, found);
  const generation = await nextGeneration(tx, pod);
  await changePodStatus(tx, pod, "taken-back");
  if (isSuspended) await changePodStatus(tx, { id: pod.id, status: "active" }, "suspended");
  await tx.execute(sql`
    UPDATE cloud_pods SET node_id = ${found.nodeId}, generation = ${generation}, region = ${region}, storage = ${room.storage},
      observed_power = ${found.container.power === Power.POWER_RUNNING ? "running" : "stopped"}, observed_at = ${by.now},
      container_missing_since = NULL, last_error_code = NULL, last_error_message = NULL WHERE id = ${pod.id}`);
  await useAddress(tx, pod);
  const back = await lockPodById(tx, pod.id);
  await recordAllocation(tx, back, by.now);
  await note(tx, back, found, by);
  const task = await queuePower(tx, back, by);
  // After every other lock, as hosts come last.
  await occupy(tx, back, pod.generation, found.nodeId, room);
  return task;
}

/** What is found there must be asked for. @returns its region */
async function regionOfOnline(tx: Queryable, { nodeId, node }: FoundPod): Promise<string> {
  const [host] = await tx.query<{ region: string }>(sql`
    SELECT n.region FROM nodes n JOIN node_status s ON s.node_id = n.id
    WHERE n.id = ${nodeId} AND n.removed_at IS NULL AND s.state IN ('online', 'degraded') AND s.session_connected`);
  if (host === undefined) throw refused("NODE_NOT_ONLINE", `${node} is not there to be asked.`);
  return host.region;
}

/**
 * Somebody may have brought the pod back by hand, and as its other copies are stopped and removed once it has a place,
 * people must say which of them it is. Copies of older places are no question.
 */
async function requireOnlyOne(tx: Queryable, { id, vmid, generation }: Pod, { nodeId }: FoundPod): Promise<void> {
  const [other] = await tx.query<{ node: string; vmid: number }>(sql`
    SELECT n.name AS node, f.vmid FROM node_findings f JOIN nodes n ON n.id = f.node_id
    WHERE f.pod_id = ${id} AND f.kind = 'orphan' AND f.state = 'open' AND (f.evidence->>'generation')::bigint >= ${generation}
      AND NOT (f.node_id = ${nodeId} AND f.vmid = ${vmid}) ORDER BY f.id LIMIT 1`);
  if (other === undefined) return;
  const message = `${other.node} shows container ${other.vmid} of the same pod. Say first which of them it is: remove or dismiss the other one.`;
  throw refused("COPY_ELSEWHERE", message, { ...other });
}

/** An address that is written in the container, as of one that was adopted, may be another pod's by now; others are given out anew. */
async function requireAddressFree(tx: Queryable, pod: Pod, region: string): Promise<void> {
  const [ip = ""] = pod.adoptedNetwork?.ip.split("/") ?? [];
  const [holder] = await tx.query<{ name: string }>(sql`
    SELECT p.name FROM cloud_pod_addresses a JOIN cloud_pods p ON p.id = a.pod_id
    WHERE a.ip = ${ip} AND a.used_to IS NULL AND p.id <> ${pod.id} AND p.region = ${region} AND p.bridge = ${pod.bridge}
      AND coalesce((p.adopted_network->>'vlanTag')::integer, 0) = ${pod.adoptedNetwork?.vlanTag ?? 0} LIMIT 1`);
  if (holder === undefined) return;
  throw new DomainError("conflict", "ADDRESS_CONFLICT", `The pod ${holder.name} has the address ${ip} by now.`);
}

async function hasSuspendHold(tx: Queryable, podId: string): Promise<boolean> {
  const holds = await tx.query(
    sql`SELECT FROM cloud_pod_holds WHERE pod_id = ${podId} AND effect = 'suspend' AND until IS NULL`,
  );
  return holds.length > 0;
}

/** What an order asks. A suspended pod counts against no quota and does not run, as before. */
async function countAgain(tx: Queryable, pod: Pod, isSuspended: boolean): Promise<void> {
  if (!isSuspended) {
    await requireBudgetLeft(tx, pod.tenantId);
    await reserveQuota(tx, pod.tenantId, quotaOf(pod));
  }
  const plan = pod.planCode === null ? undefined : await readPlan(tx, pod.planCode);
  await requirePriced(tx, pod.tenantId, plan);
  if (plan !== undefined) await requirePlanFree(tx, pod.tenantId, plan, pod.id);
}

/** The room that was held for it, else where its disk is now: its host may have joined anew. */
async function findRoom(tx: Queryable, pod: Pod, { nodeId, node, container }: FoundPod): Promise<Room> {
  const [room] = await tx.query<Room>(sql`
    SELECT true AS "isKept", s.id AS "storageId", s.name AS storage FROM node_claims k JOIN storages s ON s.id = k.storage_id
    WHERE k.pod_id = ${pod.id} AND k.generation = ${pod.generation} AND k.node_id = ${nodeId}
    UNION ALL
    SELECT false, s.id, s.name FROM node_storages v JOIN storages s ON s.id = v.storage_id
    WHERE v.node_id = ${nodeId} AND s.name = ${container.storage} AND s.holds_root_disks
    ORDER BY "isKept" DESC LIMIT 1`);
  if (room !== undefined) return room;
  const message = `Its disk is on the storage ${container.storage || "(none)"} of ${node}, which holds no root disks that we know of.`;
  throw refused("STORAGE_UNKNOWN", message);
}

async function useAddress(tx: Queryable, pod: Pod): Promise<void> {
  try {
    await tx.execute(sql`
      INSERT INTO cloud_pod_addresses (id, tenant_id, pod_id, mac) VALUES (${newId()}, ${pod.tenantId}, ${pod.id}, ${pod.mac})`);
  } catch (error) {
    if (violatedConstraint(error) !== "mac_in_use_once") throw error;
    throw new DomainError("conflict", "MAC_CONFLICT", `Another pod has the MAC ${pod.mac}.`, { cause: error });
  }
}

async function note(tx: Queryable, pod: Pod, { nodeId, node }: FoundPod, by: TakingBack): Promise<void> {
  await recordAudit(tx, {
    actor: by.actor,
    requestId: by.requestId,
    tenantId: pod.tenantId,
    action: "pod.taken-back",
    targetType: "pod",
    targetId: pod.id,
    detail: { node, generation: pod.generation },
  });
  const message = `pod ${pod.name} (${pod.vmid}), which was given up with the host, is the host's again`;
  await appendNodeEvents(tx, [{ nodeId, kind: "POD_TAKEN_BACK", message, detail: { podId: pod.id, vmid: pod.vmid } }]);
}

/** Sets its power as wanted, which also writes the new generation into its mark. */
async function queuePower(tx: Queryable, pod: Pod, { requestId }: TakingBack): Promise<Task> {
  const isOn = pod.status === "active" && pod.desiredPower === "running" && (await isFreeToRun(tx, pod));
  return await createTask(tx, {
    tenantId: pod.tenantId,
    podId: pod.id,
    type: isOn ? "start" : pod.status === "suspended" ? "suspend" : "stop",
    step: isOn ? "start" : "stop",
    input: {},
    deadlineMs: powerDeadlineMs,
    // Until it is done the host has the pod under its former mark.
    requestedBy: "system:drains",
    requestId,
    message: "The pod's host is back with it",
  });
}

/** Room that was held is not asked for again: nothing more is promised than before. */
async function occupy(tx: Queryable, pod: Pod, former: bigint, nodeId: string, room: Room): Promise<void> {
  const { id: podId, tenantId, vmid, generation, cores, memoryMb, diskGb } = pod;
  if (!room.isKept) {
    const claim = { tenantId, podId, vmid, generation, cores, memoryMb, diskGb };
    await claimInPlace(tx, claim, { nodeId, storageId: room.storageId });
    return;
  }
  const kept = await tx.execute(sql`
    UPDATE node_claims SET generation = ${generation}, purpose = 'home' WHERE pod_id = ${podId} AND generation = ${former} AND node_id = ${nodeId}`);
  if (kept === 0) throw refused("NODE_NOT_ONLINE", "The host is being removed.");
  await tx.execute(sql`
    INSERT INTO cloud_pod_placements (id, tenant_id, pod_id, node_id, vmid, generation)
    VALUES (${newId()}, ${tenantId}, ${podId}, ${nodeId}, ${vmid}, ${generation})`);
}

function refused(code: string, message: string, details: Readonly<Record<string, unknown>> = {}): DomainError {
  return new DomainError("wrong-state", code, message, { details });
}
