import { Money } from "@cloudpods/shared/money";
import type { Queryable } from "../platform/database.ts";
import type { accrueMonth } from "../rating/accrual.ts";
import { allocatedCost } from "../rating/allocated-rate.ts";
import { monthStart, yearMonthOf } from "./budget.ts";
import { burnRatePerHour } from "./decide-budget.ts";

/** What a tenant has spent this month, and how fast. */
export interface Pace {
  readonly yearMonth: string;
  readonly spend: Money;
  readonly perHour: Money;
  /** What pods that shall run may have cost since their hosts last reported, at most; not in `spend`. */
  readonly unmeasured: Money;
}

const windowMs = 3_600_000;

/**
 * Spend and pace of a tenant at `now`, from the figures that bills are made of. The pace is that of the last hour, or
 * of the month where it is younger; but not less than what his pods cost by the hour as they are now, traffic apart,
 * because pods that began to run a minute ago have hardly cost anything yet.
 * @param db the owner's login: samples have no grant for tenants
 */
export async function readPace(db: Queryable, accrue: typeof accrueMonth, tenantId: string, now: Date): Promise<Pace> {
  const begin = monthStart(now);
  const then = new Date(Math.max(begin.getTime(), now.getTime() - windowMs));
  const [current, earlier, allocated] = await Promise.all([
    accrue(db, [tenantId], now),
    accrue(db, [tenantId], then),
    allocatedCost(db, tenantId, now),
  ]);
  const spend = current.get(tenantId)?.total;
  if (spend === undefined) throw new Error(`nothing was accrued for tenant ${tenantId}, not even zero`);
  // The very beginning of a month has nothing before it.
  const before = then > begin ? earlier.get(tenantId)?.total : undefined;
  const measured = burnRatePerHour(before ?? Money.zero(spend.currency), spend, now.getTime() - then.getTime());
  const { perHour, unmeasured } = allocated;
  return {
    yearMonth: yearMonthOf(now),
    spend,
    perHour: perHour.compare(measured) > 0 ? perHour : measured,
    unmeasured,
  };
}
