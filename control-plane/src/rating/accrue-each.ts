import type { Logger } from "pino";
import type { Queryable } from "../platform/database.ts";
import type { AccrueMonth } from "./accrual.ts";
import type { AccruedMonth } from "./cost-parts.ts";

/** Tenants of one statement: few enough to be quick also with a plan that looks at all of them for each. */
const tenantsTogether = 50;

/** What accruing many tenants needs. */
interface AccrueDeps {
  readonly db: Queryable;
  readonly log: Logger;
  readonly accrue: AccrueMonth;
}

/**
 * As `accrue`, for those who judge many tenants: some at a time, and where one statement for some fails, each has one
 * of his own. Who still cannot be accrued is logged, left out and does not keep the others waiting.
 */
export async function accrueEach(
  deps: AccrueDeps,
  tenantIds: readonly string[],
  at: Date,
): Promise<{ readonly accrued: ReadonlyMap<string, AccruedMonth>; readonly failed: number }> {
  const accrued = new Map<string, AccruedMonth>();
  for (let first = 0; first < tenantIds.length; first += tenantsTogether)
    for (const entry of await accrueSome(deps, tenantIds.slice(first, first + tenantsTogether), at))
      accrued.set(...entry);
  return { accrued, failed: tenantIds.length - accrued.size };
}

async function accrueSome(
  deps: AccrueDeps,
  tenantIds: readonly string[],
  at: Date,
): Promise<ReadonlyMap<string, AccruedMonth>> {
  try {
    return await deps.accrue(deps.db, tenantIds, at);
  } catch (error) {
    const [tenantId, ...others] = tenantIds;
    if (others.length === 0) {
      deps.log.error({ err: error, tenantId }, "a tenant's month cannot be accrued");
      return new Map();
    }
    const each = new Map<string, AccruedMonth>();
    for (const id of tenantIds) for (const entry of await accrueSome(deps, [id], at)) each.set(...entry);
    return each;
  }
}
