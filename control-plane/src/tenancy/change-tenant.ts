import { DomainError } from "@cloudpods/shared/errors";
import type { Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { lockQuota } from "../quotas/reserve-quota.ts";
import { recordAudit } from "../security/audit.ts";
import type { Author } from "./author.ts";
import { tenantColumns, type Tenant } from "./tenant.ts";

/** What is to be different about a tenant; what is undefined stays. */
export interface TenantChange {
  readonly name?: string | undefined;
  /** Null: none. */
  readonly billingEmail?: string | null | undefined;
  /** IANA name. */
  readonly timezone?: string | undefined;
  /** Where orders go that name none; null: the platform's default. */
  readonly region?: string | null | undefined;
  /** Price list that is paid from now on; null: the default of the currency. */
  readonly pricingName?: string | null | undefined;
  readonly status?: Tenant["status"] | undefined;
  /** Why the status changes, for the audit log. */
  readonly reason?: string | undefined;
}

/**
 * Changes a tenant. A suspended one reads and pays, and gets nothing new; a closed one is gone for its members,
 * until it is active again.
 * @throws DomainError `not-found` TENANT_UNKNOWN; `wrong-state` TENANT_HAS_PODS; `invalid` PRICING_UNKNOWN.
 */
export async function changeTenant(
  system: Transaction,
  tenantId: string,
  change: TenantChange,
  author: Author,
): Promise<Tenant> {
  if (change.status === "closed") await requireNoPods(system, tenantId);
  if (typeof change.pricingName === "string") await requirePricing(system, tenantId, change.pricingName);
  const { name, billingEmail, timezone, region, pricingName, status } = change;
  const [tenant] = await system.query<Tenant>(sql`
    UPDATE tenants SET name = coalesce(${name ?? null}, name), timezone = coalesce(${timezone ?? null}, timezone),
      billing_email = CASE WHEN ${billingEmail === undefined} THEN billing_email ELSE ${billingEmail ?? null} END,
      region = CASE WHEN ${region === undefined} THEN region ELSE ${region ?? null} END,
      pricing_name = CASE WHEN ${pricingName === undefined} THEN pricing_name ELSE ${pricingName ?? null} END,
      status = coalesce(${status ?? null}, status)
    WHERE id = ${tenantId} RETURNING ${tenantColumns}`);
  if (tenant === undefined) throw new DomainError("not-found", "TENANT_UNKNOWN", "There is no such tenant.");
  await recordAudit(system, {
    actor: author.actor,
    requestId: author.requestId,
    tenantId,
    action: "tenant.change",
    targetType: "tenant",
    targetId: tenantId,
    detail: { ...change },
  });
  return tenant;
}

/** A name without a list in the tenant's currency would quietly mean the default. */
async function requirePricing(system: Transaction, tenantId: string, name: string): Promise<void> {
  const known = await system.query(sql`
    SELECT FROM cloud_pod_pricing p JOIN tenants t ON t.currency = p.currency
    WHERE t.id = ${tenantId} AND p.name = ${name} AND p.effective_from <= now() AND (p.effective_until IS NULL OR p.effective_until > now())`);
  if (known.length > 0) return;
  const detail = `There is no price list ${name} in the tenant's currency at the moment.`;
  throw new DomainError("invalid", "PRICING_UNKNOWN", detail, { errors: [{ pointer: "/pricingName", detail }] });
}

/** Under the lock of the quota row, which every order takes before its pod. */
async function requireNoPods(system: Transaction, tenantId: string): Promise<void> {
  await lockQuota(system, tenantId);
  const [row] = await system.query<{ pods: bigint }>(
    sql`SELECT count(*) AS pods FROM cloud_pods WHERE tenant_id = ${tenantId} AND status <> 'deleted'`,
  );
  const pods = Number(row?.pods ?? 0n);
  if (pods === 0) return;
  throw new DomainError("wrong-state", "TENANT_HAS_PODS", `The tenant has ${pods} pods; destroy them first.`, {
    details: { pods },
  });
}
