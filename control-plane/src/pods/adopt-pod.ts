import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import { requireBudgetLeft } from "../budgets/require-budget-left.ts";
import { requireNoRestore } from "../nodes/declare-restored.ts";
import { violatedConstraint, type Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { resolvePlan } from "../plans/resolve-plan.ts";
import { reserveQuota } from "../quotas/reserve-quota.ts";
import { claimInPlace } from "../scheduling/claim-in-place.ts";
import type { Actor } from "../security/actor.ts";
import { recordAudit } from "../security/audit.ts";
import { createTask } from "../tasks/create-task.ts";
import { adoptDeadlineMs, adoptStep } from "./adopt-pod.saga.ts";
import type { Accepted } from "./change-power.ts";
import { findAdoptable, type AdoptableContainer } from "./check-adoption.ts";
import { requirePlanFree } from "./plan-limits.ts";
import { findPod } from "./pod.ts";
import { quotaOf } from "./release-pod.ts";
import { requirePriced } from "./require-priced.ts";

/** Which container shall become whose pod. */
export interface Adoption {
  readonly nodeId: string;
  readonly vmid: number;
  readonly tenantId: string;
  /** Only where the container has the plan's size; else it is paid by use. */
  readonly planCode?: string | undefined;
  readonly name?: string | undefined;
}

/**
 * Makes somebody's container a tenant's pod as it is: its id, size, address, MAC, disk and power stay. Quota, place and
 * pod row are taken at once; it is the tenant's, and paid for, when the host has marked it. A mark that an adoption in vain
 * has left in it is replaced.
 * @throws DomainError `RESTORE_IN_PROGRESS`, `TENANT_NOT_FOUND`, `NODE_NOT_ONLINE`, `CONTAINER_NOT_FOUND`, `CONTAINER_NOT_ADOPTABLE`,
 *   `PLAN_NOT_FOUND`, `NOT_PRICED`, `PLAN_DOES_NOT_MATCH`, `PLAN_LIMIT_REACHED`, `BUDGET_EXHAUSTED`, `QUOTA_EXCEEDED`, `VMID_CONFLICT`, `MAC_CONFLICT`, `NO_CAPACITY`
 */
export async function adoptPod(
  tx: Transaction,
  who: { readonly actor: Actor; readonly requestId: string },
  adoption: Adoption,
): Promise<Accepted> {
  await requireNoRestore(tx);
  const { tenantId, vmid, nodeId } = adoption;
  const [tenant] = await tx.query(sql`SELECT FROM tenants WHERE id = ${tenantId} AND status = 'active'`);
  if (tenant === undefined) throw new DomainError("not-found", "TENANT_NOT_FOUND", "There is no such tenant.");
  const found = await findAdoptable(tx, nodeId, vmid);
  await requireBudgetLeft(tx, tenantId);
  await reserveQuota(tx, tenantId, quotaOf(found));
  const planCode = await matchingPlan(tx, adoption, found);
  const podId = newId();
  await insertPod(tx, podId, adoption, found, planCode);
  await recordAudit(tx, {
    ...who,
    tenantId,
    action: "pod.adopt",
    targetType: "pod",
    targetId: podId,
    detail: { nodeId, vmid, planCode, cores: found.cores, memoryMb: found.memoryMb, diskGb: found.diskGb },
  });
  const task = await createTask(tx, {
    tenantId,
    podId,
    type: "adopt",
    step: adoptStep.name,
    input: {
      configSha256: found.configSha256,
      replacesPodId: found.replacesPodId,
      askedBy: `${who.actor.kind}:${who.actor.id}`,
    },
    deadlineMs: adoptDeadlineMs,
    // Nobody may stop it between the mark on the host and the pod in our books.
    requestedBy: "system:adoption",
    requestId: who.requestId,
    message: `Taking over container ${vmid}`,
  });
  const { cores, memoryMb, diskGb } = found;
  await claimInPlace(
    tx,
    { tenantId, podId, vmid, generation: 1n, cores, memoryMb, diskGb },
    { nodeId, storageId: found.storageId },
  );
  return { pod: await findPod(tx, tenantId, podId), task };
}

async function matchingPlan(
  tx: Transaction,
  { planCode, tenantId }: Adoption,
  found: AdoptableContainer,
): Promise<string | null> {
  const plan = planCode === undefined ? undefined : await resolvePlan(tx, planCode);
  await requirePriced(tx, tenantId, plan);
  if (plan === undefined) return null;
  const differs = (["cores", "memoryMb", "diskGb"] as const).filter((key) => plan[key] !== found[key]);
  if (differs.length > 0) {
    const has = differs.map((key) => `${key} ${found[key]} instead of ${plan[key]}`).join(", ");
    const message = `The container is not of the plan ${plan.name}'s size (${has}). Adopt it by its own size and scale it then.`;
    throw new DomainError("invalid", "PLAN_DOES_NOT_MATCH", message, {
      errors: [{ pointer: "/planCode", detail: "has another size than the container" }],
    });
  }
  await requirePlanFree(tx, tenantId, plan);
  return plan.code;
}

async function insertPod(
  tx: Transaction,
  podId: string,
  { tenantId, vmid, nodeId, name }: Adoption,
  found: AdoptableContainer,
  planCode: string | null,
): Promise<void> {
  const subscriptionId = newId();
  try {
    await tx.execute(sql`
      WITH subscription AS (
        INSERT INTO subscriptions (id, tenant_id, plan_code, external_ref, currency)
        SELECT ${subscriptionId}, id, ${planCode}, ${podId}, currency FROM tenants WHERE id = ${tenantId})
      INSERT INTO cloud_pods (id, tenant_id, vmid, name, hostname, region, plan_code, billing_mode, desired_power, observed_power, observed_at, node_id,
        cores, memory_mb, swap_mb, disk_gb, storage, bridge, nesting, rate_limit_kib_per_second, mac, adopted_network)
      VALUES (${podId}, ${tenantId}, ${vmid}, ${name ?? found.hostname}, ${found.hostname}, ${found.region}, ${planCode},
        ${planCode === null ? "metered" : "plan"}, ${found.power}, ${found.power}, now(), ${nodeId}, ${found.cores}, ${found.memoryMb},
        ${found.swapMb}, ${found.diskGb}, ${found.storage}, ${found.bridge}, ${found.nesting}, ${found.rateLimitKibPerSecond}, ${found.mac},
        ${JSON.stringify(found.network)})`);
    await tx.execute(sql`UPDATE cloud_pods SET subscription_id = ${subscriptionId} WHERE id = ${podId}`);
    await tx.execute(sql`
      INSERT INTO cloud_pod_addresses (id, tenant_id, pod_id, mac) VALUES (${newId()}, ${tenantId}, ${podId}, ${found.mac})`);
  } catch (error) {
    const constraint = violatedConstraint(error);
    if (constraint === "one_live_pod_per_vmid")
      throw conflict("VMID_CONFLICT", `Another pod of the fleet has the id ${vmid}.`, error);
    if (constraint === "mac_in_use_once")
      throw conflict("MAC_CONFLICT", `Another pod has the MAC ${found.mac}.`, error);
    throw error;
  }
}

function conflict(code: string, message: string, cause: unknown): DomainError {
  return new DomainError("conflict", code, message, { cause });
}
