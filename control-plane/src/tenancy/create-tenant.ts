import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import { createDefaultBudget } from "../budgets/default-budget.ts";
import { violatedConstraint, type Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { recordAudit } from "../security/audit.ts";
import { commandLine, type Author } from "./author.ts";
import { tenantColumns, type Tenant } from "./tenant.ts";

/** What a new tenant is to be. */
export interface TenantWish {
  /** Lower-case label, unique on the platform. */
  readonly slug: string;
  readonly name: string;
  readonly region?: string | undefined;
  /** ISO 4217; default USD. */
  readonly currency?: string | undefined;
  readonly billingEmail?: string | undefined;
  /** IANA name of the zone in which subscription periods begin; default UTC. */
  readonly timezone?: string | undefined;
  /** User who becomes its owner; undefined: none yet. */
  readonly ownerId?: string | undefined;
}

/**
 * Makes a tenant, with its owner where one is named and a budget that alerts.
 * @throws DomainError `already-exists` SLUG_TAKEN; `invalid` SLUG_INVALID, USER_UNKNOWN.
 */
export async function createTenant(tx: Transaction, wish: TenantWish, author: Author = commandLine): Promise<Tenant> {
  const id = newId();
  const [tenant] = await tx
    .query<Tenant>(sql`
      INSERT INTO tenants (id, slug, name, region, currency, billing_email, timezone)
      VALUES (${id}, ${wish.slug}, ${wish.name}, ${wish.region ?? null}, ${wish.currency ?? "USD"}, ${wish.billingEmail ?? null}, ${wish.timezone ?? "UTC"})
      RETURNING ${tenantColumns}`)
    .catch(refuse);
  if (tenant === undefined) throw new Error("INSERT … RETURNING gave no row");
  if (wish.ownerId !== undefined) {
    await tx
      .execute(sql`INSERT INTO memberships (tenant_id, user_id, role) VALUES (${id}, ${wish.ownerId}, 'owner')`)
      .catch(refuse);
  }
  await createDefaultBudget(tx, id, tenant.currency);
  const detail = { slug: wish.slug, ownerId: wish.ownerId ?? null };
  await recordAudit(tx, {
    actor: author.actor,
    requestId: author.requestId,
    tenantId: id,
    action: "tenant.create",
    targetType: "tenant",
    targetId: id,
    detail,
  });
  return tenant;
}

function refuse(error: unknown): never {
  const constraint = violatedConstraint(error);
  if (constraint === "tenants_slug_key")
    throw new DomainError("already-exists", "SLUG_TAKEN", "There is a tenant with this slug.", { cause: error });
  if (constraint === "slug_is_a_label") {
    throw new DomainError("invalid", "SLUG_INVALID", "A slug is a label of lower-case letters, digits and dashes.", {
      cause: error,
    });
  }
  if (constraint === "memberships_user_id_fkey")
    throw new DomainError("invalid", "USER_UNKNOWN", "There is no such user.", { cause: error });
  throw error;
}
