import type { Queryable } from "../platform/database.ts";
import type { RequestedResources } from "./tenant-quota.ts";

/**
 * Counts more (or, where negative, less) against a tenant's quota in the caller's transaction and keeps the
 * tenant's quota row locked to its end. Only what increases is checked. Call it first: quota rows are
 * locked before pods and nodes. Works under both logins.
 * @throws DomainError `quota-exceeded` QUOTA_EXCEEDED with the figures as details
 */
export async function reserveQuota(tx: Queryable, tenantId: string, requested: RequestedResources): Promise<void> {
  throw new Error(`cannot reserve ${tenantId} ${String(requested)} ${String(tx)}`);
}

/** Gives back what a pod counted against its tenant's quota; never refused. */
export async function releaseQuota(tx: Queryable, tenantId: string, released: RequestedResources): Promise<void> {
  throw new Error(`cannot release ${tenantId} ${String(released)} ${String(tx)}`);
}
