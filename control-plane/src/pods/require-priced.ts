import { DomainError } from "@cloudpods/shared/errors";
import type { Plan } from "../plans/resolve-plan.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { pricingInForce } from "../rating/pricing.ts";

/**
 * Requires that a tenant can be charged for what he asks for: a plan has its prices by currency, everything else the
 * tenant's price list. Without one he would pay nothing, and nobody could price it afterwards.
 * @throws DomainError `conflict` NOT_PRICED
 */
export async function requirePriced(tx: Queryable, tenantId: string, plan: Plan | undefined): Promise<void> {
  const [tenant] = await tx.query<{ currency: string; name: string | null }>(
    sql`SELECT currency, pricing_name AS name FROM tenants WHERE id = ${tenantId}`,
  );
  if (tenant === undefined) throw new Error(`there is no tenant ${tenantId}`);
  const isPriced =
    plan === undefined
      ? (await pricingInForce(tx, tenant, new Date())) !== undefined
      : plan.prices.some(({ currency }) => currency === tenant.currency);
  if (isPriced) return;
  const what = plan === undefined ? "Usage" : `The plan ${plan.name}`;
  throw new DomainError("conflict", "NOT_PRICED", `${what} has no price in ${tenant.currency} at the moment.`, {
    details: { planCode: plan?.code ?? null, currency: tenant.currency },
  });
}
