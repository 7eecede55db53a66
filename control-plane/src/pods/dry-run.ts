import { Power, type ContainerSpec, type PlanQuestion } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { requireBudgetLeft } from "../budgets/require-budget-left.ts";
import { askPlan, type PlanAnswer } from "../nodes/ask-node.ts";
import type { Hints } from "../platform/hints.ts";
import { resolvePlan, type Plan } from "../plans/resolve-plan.ts";
import type { Database, Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { QuotaCheck } from "../quotas/quota.ts";
import { checkTenantQuota } from "../quotas/tenant-quota.ts";
import { growthVerdict } from "../scheduling/change-claim.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { previewPlacement } from "../scheduling/place-pod.ts";
import type { ReasonCount } from "../scheduling/verdict.ts";
import type { PodSize } from "./change-size.saga.ts";
import { containerSpecOf } from "./container-spec.ts";
import { newMacAddress } from "./mac-address.ts";
import { orderedSize, type PodOrder } from "./order-pod.ts";
import type { Pod } from "./pod.ts";
import { quotaOf } from "./release-pod.ts";
import { placementRequestOf } from "./reserve-place.ts";

/** What would happen; nothing of it is written. */
export interface DryRun {
  /** Null where nothing is asked of it. */
  readonly quota: QuotaCheck | null;
  readonly placement: {
    readonly node: string | null;
    readonly summary: string;
    readonly reasons: readonly ReasonCount[];
  } | null;
  readonly price: { readonly amount: string; readonly currency: string; readonly per: "month" } | null;
  /** What to ask the host, once the transaction is over; undefined when there is none to ask. */
  readonly question: { readonly nodeId: string; readonly plan: PlanQuestion } | undefined;
}

/**
 * The command lines of the host itself, or why it gave none. Outside of a transaction: the question must be
 * committed to be seen, and a silent host must not hold a connection.
 */
export async function askHost(
  ask: { readonly db: Database; readonly hints: Hints },
  { question }: DryRun,
): Promise<PlanAnswer> {
  return question === undefined
    ? { reason: "There is no host to ask" }
    : await askPlan(ask, question.nodeId, question.plan);
}

/** What an order would do. @throws DomainError `BUDGET_EXHAUSTED` and as `orderedSize`: the order would too */
export async function dryRunOrder(
  tx: Queryable,
  who: { readonly tenantId: string; readonly defaultRegion: string; readonly fleet: FleetView },
  order: PodOrder,
): Promise<DryRun> {
  const [size] = await Promise.all([orderedSize(tx, order), requireBudgetLeft(tx, who.tenantId)]);
  const request = placementRequestOf(
    { ...size, region: order.region ?? who.defaultRegion, placementRequest: order.placement ?? {} },
    order.template,
  );
  const { chosen, summary, reasons } = await previewPlacement(tx, who.fleet, who.tenantId, request);
  const spec = chosen === null ? undefined : await specOn(tx, chosen.nodeId, order, size);
  return {
    quota: await checkTenantQuota(tx, { tenantId: who.tenantId, requested: quotaOf(size) }),
    placement: { node: chosen?.node ?? null, summary, reasons },
    price: await priceFor(tx, who.tenantId, size.plan),
    question:
      chosen === null || spec === undefined
        ? undefined
        : {
            nodeId: chosen.nodeId,
            plan: { podId: newId(), vmid: 0, generation: 1n, spec, power: Power.POWER_RUNNING, absent: false },
          },
  };
}

/** What scaling a pod would do on its host. */
export async function dryRunScale(tx: Queryable, pod: Pod, size: PodSize): Promise<DryRun> {
  const delta = {
    cores: size.cores - pod.cores,
    memoryMb: size.memoryMb - pod.memoryMb,
    diskGb: size.diskGb - pod.diskGb,
  };
  const reasons = await growthVerdict(tx, pod.id, delta);
  const quota = { pods: 0, cpuCores: delta.cores, memoryMb: delta.memoryMb, diskGb: delta.diskGb };
  return {
    quota: await checkTenantQuota(tx, { tenantId: pod.tenantId, requested: quota }),
    placement: {
      node: reasons.length === 0 ? pod.nodeName : null,
      summary: reasons.length === 0 ? "The pod's host has room for it" : "The pod's host has no room for it",
      reasons,
    },
    price: await priceFor(tx, pod.tenantId, size.planCode === null ? undefined : await resolvePlan(tx, size.planCode)),
    question: aboutPod(pod, { spec: containerSpecOf({ ...pod, ...size }), absent: false }),
  };
}

/** What destroying a pod would do on its host. */
export function dryRunDestroy(pod: Pod): DryRun {
  return { quota: null, placement: null, price: null, question: aboutPod(pod, { spec: undefined, absent: true }) };
}

function aboutPod(pod: Pod, wish: Pick<PlanQuestion, "spec" | "absent">): DryRun["question"] {
  if (pod.nodeId === null) return undefined;
  const { id: podId, vmid, generation } = pod;
  return { nodeId: pod.nodeId, plan: { podId, vmid, generation, power: Power.POWER_UNSPECIFIED, ...wish } };
}

async function priceFor(tx: Queryable, tenantId: string, plan: Plan | undefined): Promise<DryRun["price"]> {
  const [tenant] = await tx.query<{ currency: string }>(sql`SELECT currency FROM tenants WHERE id = ${tenantId}`);
  const price = plan?.prices.find(({ currency }) => currency === tenant?.currency);
  return price === undefined ? null : { ...price, per: "month" };
}

async function specOn(
  tx: Queryable,
  nodeId: string,
  order: PodOrder,
  size: { readonly cores: number; readonly memoryMb: number; readonly swapMb: number; readonly diskGb: number },
): Promise<ContainerSpec | undefined> {
  const [node] = await tx.query<{
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
