import { DomainError } from "@cloudpods/shared/errors";
import { requireRoom } from "../backups/backup.ts";
import { chosenRules, rulesOfPlan } from "../backups/backup-policy.ts";
import { requireBudgetLeft } from "../budgets/require-budget-left.ts";
import { requireNoRestore } from "../nodes/declare-restored.ts";
import { listRegions, listTemplates } from "../plans/fleet-offers.ts";
import { resolvePlan, type Plan } from "../plans/resolve-plan.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { RequestedResources } from "../quotas/quota.ts";
import type { PodOrder } from "./order-pod.ts";
import { requirePlanAllowed } from "./plan-limits.ts";
import { quotaOf } from "./release-pod.ts";
import { requirePriced } from "./require-priced.ts";

/** What a pod of an order is made of. */
export interface OrderedSize {
  readonly plan: Plan | undefined;
  readonly cores: number;
  readonly memoryMb: number;
  readonly swapMb: number;
  readonly diskGb: number;
  readonly billingMode: "plan" | "metered";
}

/** An order that nothing but the lack of a place stands against. */
export interface CheckedOrder<Quota> {
  readonly size: OrderedSize;
  readonly region: string;
  /** What `takeQuota` gave. */
  readonly quota: Quota;
}

const defaultSwapMb = 512;

/**
 * Everything that is asked of an order before its place, for the order itself and for its dry run alike.
 * `takeQuota` reserves or only compares; what must not be true of two at once is asked after it, under its lock.
 * @throws DomainError `RESTORE_IN_PROGRESS`, `PLAN_NOT_FOUND`, `REGION_UNKNOWN`, `TEMPLATE_UNKNOWN`, `BACKUP_POLICY_BEYOND_PLAN`, `DISK_TOO_SMALL`,
 *   `BUDGET_EXHAUSTED`, `NOT_PRICED`, `EMAIL_NOT_VERIFIED`, `PLAN_LIMIT_REACHED`, and what `takeQuota` throws
 */
export async function checkOrder<Quota>(
  tx: Queryable,
  who: {
    readonly tenantId: string;
    readonly defaultRegion: string;
    readonly isEmailVerified: () => Promise<boolean>;
  },
  order: PodOrder,
  takeQuota: (wanted: RequestedResources) => Promise<Quota>,
): Promise<CheckedOrder<Quota>> {
  await requireNoRestore(tx);
  const [size, region] = await Promise.all([
    orderedSize(tx, order),
    orderedRegion(tx, who, order),
    requireBudgetLeft(tx, who.tenantId),
  ]);
  await requirePriced(tx, who.tenantId, size.plan);
  await requireTemplate(tx, order.template, region);
  if (order.backup !== undefined) chosenRules(await rulesOfPlan(tx, size.plan?.code ?? null), order.backup, "/backup");
  if (order.source !== undefined) requireRoom(order.source, size.diskGb);
  const quota = await takeQuota(quotaOf(size));
  if (size.plan !== undefined) await requirePlanAllowed(tx, who, size.plan);
  return { size, region, quota };
}

async function orderedSize(tx: Queryable, order: PodOrder): Promise<OrderedSize> {
  if (order.planCode !== undefined) {
    const plan = await resolvePlan(tx, order.planCode);
    const { cores, memoryMb, swapMb, diskGb } = plan;
    return { plan, cores, memoryMb, swapMb, diskGb, billingMode: "plan" };
  }
  if (order.resources === undefined)
    throw new DomainError("invalid", "ORDER_WITHOUT_SIZE", "Name a planCode or resources.");
  return {
    plan: undefined,
    ...order.resources,
    swapMb: order.resources.swapMb ?? defaultSwapMb,
    billingMode: "metered",
  };
}

/** The region that is named, else the tenant's, else the default; a name that nothing has never finds a place. */
async function orderedRegion(
  tx: Queryable,
  who: { readonly tenantId: string; readonly defaultRegion: string },
  order: PodOrder,
): Promise<string> {
  const named = order.region ?? (await regionOfTenant(tx, who.tenantId));
  if (named === null) return who.defaultRegion;
  const regions = (await listRegions(tx)).map(({ region }) => region);
  if (!regions.includes(named)) throw unknown("region", "REGION_UNKNOWN", named, { regions });
  return named;
}

async function regionOfTenant(tx: Queryable, tenantId: string): Promise<string | null> {
  const [tenant] = await tx.query<{ region: string | null }>(sql`SELECT region FROM tenants WHERE id = ${tenantId}`);
  return tenant?.region ?? null;
}

async function requireTemplate(tx: Queryable, template: string | undefined, region: string): Promise<void> {
  if (template === undefined) return;
  const there = (await listTemplates(tx)).filter(({ regions }) => regions.includes(region));
  const templates = there.map((offered) => offered.template);
  if (!templates.includes(template)) throw unknown("template", "TEMPLATE_UNKNOWN", template, { region, templates });
}

function unknown(what: "region" | "template", code: string, name: string, details: object): DomainError {
  const detail = `There is no ${what} ${name}.`;
  return new DomainError("invalid", code, detail, {
    details: { ...details },
    errors: [{ pointer: `/${what}`, detail }],
  });
}
