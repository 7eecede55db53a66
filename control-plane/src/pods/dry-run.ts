import { Power, type ContainerSpec } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { requireBudgetLeft } from "../budgets/require-budget-left.ts";
import { askPlan, type PlanAnswer } from "../nodes/ask-node.ts";
import type { Hints } from "../platform/hints.ts";
import type { Plan } from "../plans/resolve-plan.ts";
import type { Database, Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { QuotaCheck } from "../quotas/quota.ts";
import { checkTenantQuota } from "../quotas/tenant-quota.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { previewPlacement } from "../scheduling/place-pod.ts";
import type { PlacementVerdict } from "../scheduling/verdict.ts";
import type { PodSize } from "./change-size.saga.ts";
import { containerSpecOf } from "./container-spec.ts";
import { newMacAddress } from "./mac-address.ts";
import { orderedSize, type PodOrder } from "./order-pod.ts";
import type { Pod } from "./pod.ts";
import { quotaOf } from "./release-pod.ts";
import { placementRequestOf } from "./reserve-place.ts";

/** How hosts are asked; outside of the request's transaction, since a question must be committed to be seen. */
export interface AskDeps {
  readonly db: Database;
  readonly hints: Hints;
}

/** What would happen; nothing of it is written. */
export interface DryRun {
  readonly quota: QuotaCheck;
  readonly placement: PlacementVerdict | null;
  /** The command lines of the host itself, or why it gave none. */
  readonly commands: PlanAnswer;
  readonly price: { readonly amount: string; readonly currency: string; readonly per: "month" } | null;
}

/** What an order would do. @throws DomainError `BUDGET_EXHAUSTED` and as `orderedSize`: the order would too */
export async function dryRunOrder(
  tx: Queryable,
  ask: AskDeps,
  who: { readonly tenantId: string; readonly defaultRegion: string; readonly fleet: FleetView },
  order: PodOrder,
): Promise<DryRun> {
  const [size] = await Promise.all([orderedSize(tx, order), requireBudgetLeft(tx, who.tenantId)]);
  const quota = await checkTenantQuota(tx, { tenantId: who.tenantId, requested: quotaOf(size) });
  const request = placementRequestOf(
    { ...size, region: order.region ?? who.defaultRegion, placementRequest: order.placement ?? {} },
    order.template,
  );
  const placement = await previewPlacement(tx, who.fleet, who.tenantId, request);
  const spec = placement.chosen === null ? undefined : await specOn(ask.db, placement.chosen.nodeId, order, size);
  return {
    quota,
    placement,
    commands:
      spec === undefined || placement.chosen === null
        ? { reason: "There is no host to ask" }
        : await askPlan(ask, placement.chosen.nodeId, {
            podId: newId(),
            vmid: 0,
            generation: 1n,
            spec,
            power: Power.POWER_RUNNING,
          }),
    price: size.plan === undefined ? null : await priceFor(tx, who.tenantId, size.plan),
  };
}

async function priceFor(tx: Queryable, tenantId: string, plan: Plan): Promise<DryRun["price"]> {
  const [tenant] = await tx.query<{ currency: string }>(sql`SELECT currency FROM tenants WHERE id = ${tenantId}`);
  const price = plan.prices.find(({ currency }) => currency === tenant?.currency);
  return price === undefined ? null : { ...price, per: "month" };
}

/** What scaling a pod would do on its host. */
export async function dryRunScale(
  tx: Queryable,
  ask: AskDeps,
  pod: Pod,
  size: PodSize,
): Promise<Omit<DryRun, "price">> {
  const quota = await checkTenantQuota(tx, {
    tenantId: pod.tenantId,
    requested: {
      pods: 0,
      cpuCores: size.cores - pod.cores,
      memoryMb: size.memoryMb - pod.memoryMb,
      diskGb: size.diskGb - pod.diskGb,
    },
  });
  return { quota, placement: null, commands: await askAbout(ask, { ...pod, ...size }) };
}

async function askAbout(ask: AskDeps, pod: Pod): Promise<PlanAnswer> {
  if (pod.nodeId === null) return { reason: "The pod has no host" };
  return await askPlan(ask, pod.nodeId, {
    podId: pod.id,
    vmid: pod.vmid,
    generation: pod.generation,
    spec: containerSpecOf(pod),
    power: Power.POWER_UNSPECIFIED,
  });
}

async function specOn(
  system: Database,
  nodeId: string,
  order: PodOrder,
  size: { readonly cores: number; readonly memoryMb: number; readonly swapMb: number; readonly diskGb: number },
): Promise<ContainerSpec | undefined> {
  const [node] = await system.query<{
    storage: string | null;
    bridge: string;
    pool: string | null;
    template: string | null;
  }>(sql`
    SELECT default_storage AS storage, bridge, pool, coalesce(${order.template ?? null}, 'ct:' || template_vmid, template_archive) AS template
    FROM nodes WHERE id = ${nodeId}`);
  if (node === undefined || node.storage === null || node.template === null) return undefined;
  return containerSpecOf({
    ...size,
    ...node,
    id: "",
    hostname: order.hostname,
    mac: newMacAddress(),
    nesting: true,
    rateLimitKibPerSecond: 0,
    sshKeys: order.sshKeys ?? [],
  });
}
