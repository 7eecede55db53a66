import { DomainError } from "@cloudpods/shared/errors";
import type { Plan } from "../plans/resolve-plan.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/**
 * Requires that whoever asks may have one more pod of a plan, the named pod not counted. Call it while the
 * quota's row is locked, so that two at once cannot both be the last.
 * @throws DomainError `EMAIL_NOT_VERIFIED`, `PLAN_LIMIT_REACHED`
 */
export async function requirePlanAllowed(
  tx: Queryable,
  who: { readonly tenantId: string; readonly isEmailVerified: () => Promise<boolean> },
  plan: Plan,
  podId?: string,
): Promise<void> {
  await requireProvenAddress(plan, who.isEmailVerified);
  await requirePlanFree(tx, who.tenantId, plan, podId);
}

/** The part of `requirePlanAllowed` that can change while a pod is there. @throws DomainError `PLAN_LIMIT_REACHED` */
export async function requirePlanFree(tx: Queryable, tenantId: string, plan: Plan, podId?: string): Promise<void> {
  if (plan.maxPerTenant === null) return;
  const [row] = await tx.query<{ count: bigint }>(sql`
    SELECT count(*) FROM cloud_pods
    WHERE tenant_id = ${tenantId} AND plan_code = ${plan.code} AND status NOT IN ('failed', 'deleted') AND id IS DISTINCT FROM ${podId ?? null}::uuid`);
  if (row !== undefined && row.count < BigInt(plan.maxPerTenant)) return;
  throw new DomainError(
    "quota-exceeded",
    "PLAN_LIMIT_REACHED",
    `A tenant may have ${plan.maxPerTenant} of the plan ${plan.name}.`,
    { details: { planCode: plan.code, max: plan.maxPerTenant } },
  );
}

async function requireProvenAddress(plan: Plan, isEmailVerified: () => Promise<boolean>): Promise<void> {
  if (!plan.requiresVerifiedEmail || (await isEmailVerified())) return;
  throw new DomainError("forbidden", "EMAIL_NOT_VERIFIED", `The plan ${plan.name} needs a verified e-mail address.`);
}
