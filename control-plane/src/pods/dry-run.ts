import { Power, type ContainerSpec, type PlanQuestion } from "@cloudpods/shared/gen/cloudpods/agent/v1/agent_gateway";
import { newId } from "@cloudpods/shared/ids";
import { shownMoney } from "../http/fields.ts";
import { askPlan, type PlanAnswer } from "../nodes/ask-node.ts";
import { made } from "../nodes/planned-command.ts";
import type { Hints } from "../platform/hints.ts";
import { resolvePlan, type Plan } from "../plans/resolve-plan.ts";
import type { Database, Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { QuotaCheck } from "../quotas/quota.ts";
import { checkTenantQuota } from "../quotas/tenant-quota.ts";
import { pricingInForce } from "../rating/pricing.ts";
import { estimateMonthlyCost } from "../rating/rules.ts";
import type { FleetView } from "../scheduling/fleet-view.ts";
import { judgeGrowth } from "../scheduling/growth-verdict.ts";
import { previewPlacement, type Place } from "../scheduling/place-pod.ts";
import type { PlacementVerdict } from "../scheduling/verdict.ts";
import { checkOrder, type OrderedSize } from "./check-order.ts";
import { containerSpecOf } from "./container-spec.ts";
import { requireNothingElse, type DestroyOptions } from "./destroy-pod.ts";
import type { PodOrder } from "./order-pod.ts";
import type { Pod } from "./pod.ts";
import { requestOf } from "./reserve-place.ts";
import { checkScale, type ScaleOrder } from "./scale-pod.ts";

/** What would happen; nothing of it is written. */
export interface DryRun {
  /** Null where nothing is asked of it. */
  readonly quota: QuotaCheck | null;
  readonly placement: {
    readonly node: string | null;
    readonly summary: string;
    /** Reasons of each node are for operators. */
    readonly verdict: PlacementVerdict;
  } | null;
  readonly price: { readonly amount: string; readonly currency: string; readonly per: "month" } | null;
  /** What to ask the host, once the transaction is over; undefined when there is none to ask. */
  readonly question:
    | {
        readonly nodeId: string;
        readonly plan: PlanQuestion;
        /** What an order would only be given when it is made, and by what name it is shown instead. */
        readonly madeUp: Readonly<Record<string, string>>;
      }
    | undefined;
}

/**
 * The command lines of the host itself, or why it gave none. Outside of a transaction: the question must be
 * committed to be seen, and a silent host must not hold a connection.
 */
export async function askHost(
  ask: { readonly db: Database; readonly hints: Hints },
  { question }: DryRun,
): Promise<PlanAnswer> {
  if (question === undefined) return { reason: "There is no host to ask" };
  const answer = await askPlan(ask, question.nodeId, question.plan);
  if ("reason" in answer) return answer;
  const named = (line: string) =>
    Object.entries(question.madeUp).reduce((text, [value, name]) => text.replaceAll(value, name), line);
  return { commandLines: answer.commandLines.map(named) };
}

/** Who asks what would happen. */
export interface DryRunAsker {
  readonly tenantId: string;
  readonly isEmailVerified: () => Promise<boolean>;
  readonly now: Date;
}

/** Who asks what an order would do. */
export interface OrderAsker extends DryRunAsker {
  readonly defaultRegion: string;
  readonly fleet: FleetView;
}

/** What an order would come to, whatever its pod is made from. */
export interface PlannedOrder extends Pick<DryRun, "quota" | "placement" | "price"> {
  readonly size: OrderedSize;
  /** The place that it would get and what would be made there; undefined: there is none. */
  readonly there: { readonly nodeId: string; readonly node: string; readonly spec: ContainerSpec } | undefined;
}

/** What an order would do. @throws DomainError as `checkOrder`: the order would too */
export async function dryRunOrder(tx: Queryable, who: OrderAsker, order: PodOrder): Promise<DryRun> {
  const { quota, placement, price, there } = await planOrder(tx, who, order);
  return { quota, placement, price, question: there && aboutNewPod(there.nodeId, there.spec) };
}

/** What an order would come to; nothing is claimed. @throws DomainError as `checkOrder` */
export async function planOrder(tx: Queryable, who: OrderAsker, order: PodOrder): Promise<PlannedOrder> {
  const { tenantId } = who;
  const { size, region, quota } = await checkOrder(tx, who, order, (requested) =>
    checkTenantQuota(tx, { tenantId, requested }),
  );
  const request = await requestOf(tx, {
    ...size,
    region,
    placementRequest: order.placement ?? {},
    template: order.template ?? null,
    sourceBackupId: order.source?.id ?? null,
  });
  const { place, verdict } = await previewPlacement(tx, who.fleet, tenantId, request);
  return {
    size,
    quota,
    placement: { node: place?.node ?? null, summary: verdict.summary, verdict },
    price: await priceFor(tx, who, size, size.plan),
    there: place && { nodeId: place.nodeId, node: place.node, spec: specAt(place, order, size) },
  };
}

/** What scaling a pod would do on its host. @throws DomainError as `checkScale`: scaling would too */
export async function dryRunScale(tx: Queryable, who: DryRunAsker, pod: Pod, order: ScaleOrder): Promise<DryRun> {
  const { size, taken } = await checkScale(tx, who, pod, order, async (wanted) => {
    const delta = {
      cores: wanted.cores - pod.cores,
      memoryMb: wanted.memoryMb - pod.memoryMb,
      diskGb: wanted.diskGb - pod.diskGb,
    };
    const requested = { pods: 0, cpuCores: delta.cores, memoryMb: delta.memoryMb, diskGb: delta.diskGb };
    const quota = await checkTenantQuota(tx, { tenantId: pod.tenantId, requested });
    return { quota, verdict: (await judgeGrowth(tx, pod.id, delta)).verdict };
  });
  const fits = taken.verdict.fitting > 0;
  const plan = size.planCode === null ? undefined : await resolvePlan(tx, size.planCode);
  return {
    quota: taken.quota,
    placement: {
      node: fits ? pod.nodeName : null,
      summary: fits ? "The pod's host has room for it" : "The pod's host has no room for it",
      verdict: taken.verdict,
    },
    price: await priceFor(tx, who, size, plan),
    question: aboutPod(pod, { spec: containerSpecOf({ ...pod, ...size }), absent: false, volumes: [] }),
  };
}

/** What destroying a pod would do on its host. @throws DomainError `MORE_THAN_A_POD`, as the destroy would */
export function dryRunDestroy(pod: Pod, options: DestroyOptions): DryRun {
  const wish = { spec: undefined, absent: true, volumes: [...requireNothingElse(options)] };
  return { quota: null, placement: null, price: null, question: aboutPod(pod, wish) };
}

/** The host puts a name in the place of the VMID, which the wish does not have, by itself. */
function aboutNewPod(nodeId: string, spec: ContainerSpec): DryRun["question"] {
  const podId = newId();
  return {
    nodeId,
    plan: { podId, vmid: 0, generation: 1n, spec, power: Power.POWER_RUNNING, absent: false, volumes: [] },
    madeUp: { [podId]: "<pod>", ...(spec.network === undefined ? {} : { [spec.network.mac]: "<mac>" }) },
  };
}

function aboutPod(pod: Pod, wish: Pick<PlanQuestion, "spec" | "absent" | "volumes">): DryRun["question"] {
  if (pod.nodeId === null) return undefined;
  const { id: podId, vmid, generation } = pod;
  return { nodeId: pod.nodeId, plan: { podId, vmid, generation, power: Power.POWER_UNSPECIFIED, ...wish }, madeUp: {} };
}

/** The plan's price, else that of the resources when they are used all month; traffic is not known yet. */
async function priceFor(
  tx: Queryable,
  { tenantId, now }: DryRunAsker,
  size: { readonly cores: number; readonly memoryMb: number; readonly diskGb: number },
  plan: Plan | undefined,
): Promise<DryRun["price"]> {
  const [tenant] = await tx.query<{ currency: string; name: string | null }>(
    sql`SELECT currency, pricing_name AS name FROM tenants WHERE id = ${tenantId}`,
  );
  if (tenant === undefined) return null;
  if (plan !== undefined) {
    const price = plan.prices.find(({ currency }) => currency === tenant.currency);
    return price === undefined ? null : { ...price, per: "month" };
  }
  const pricing = await pricingInForce(tx, tenant, now);
  if (pricing === undefined) return null;
  const { total } = estimateMonthlyCost(pricing, { ...size, estimatedNetworkOutGb: 0 });
  return { ...shownMoney(total), per: "month" };
}

function specAt(
  { storage, bridge, pool, template }: Place,
  order: PodOrder,
  size: { readonly cores: number; readonly memoryMb: number; readonly swapMb: number; readonly diskGb: number },
): ContainerSpec {
  return containerSpecOf({
    ...size,
    storage,
    bridge,
    pool,
    template: template ?? order.source?.spec.template ?? null,
    id: "",
    hostname: order.hostname,
    mac: made.mac,
    nesting: true,
    rateLimitKibPerSecond: 0,
    sshKeys: order.sshKeys ?? [],
    adoptedNetwork: null,
    activatedAt: null,
  });
}
