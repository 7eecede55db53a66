import type { Logger } from "pino";
import type { Queryable } from "../platform/database.ts";
import type { AccrueMonth } from "./accrual.ts";
import type { AccruedMonth } from "./cost-parts.ts";

/**
 * As `accrue`, for those who judge many tenants: where one statement for all fails, each has one of his own, and who
 * still cannot be accrued is logged, left out and does not keep the others waiting.
 */
export async function accrueEach(
  deps: { readonly db: Queryable; readonly log: Logger; readonly accrue: AccrueMonth },
  tenantIds: readonly string[],
  at: Date,
): Promise<{ readonly accrued: ReadonlyMap<string, AccruedMonth>; readonly failed: number }> {
  const all = await deps.accrue(deps.db, tenantIds, at).catch((error: unknown) => {
    deps.log.warn({ err: error, tenants: tenantIds.length }, "tenants are accrued one by one: together they cannot be");
    return undefined;
  });
  if (all !== undefined) return { accrued: all, failed: 0 };
  const accrued = new Map<string, AccruedMonth>();
  for (const tenantId of tenantIds) {
    try {
      for (const entry of await deps.accrue(deps.db, [tenantId], at)) accrued.set(...entry);
    } catch (error) {
      deps.log.error({ err: error, tenantId }, "a tenant's month cannot be accrued");
    }
  }
  return { accrued, failed: tenantIds.length - accrued.size };
}
