import { newId } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { planCatalogue, type PlanSeed } from "./plan-catalogue.ts";

/** Before anything was ever sold, so that every usage finds a price. */
const firstPricesFrom = "2025-01-01T00:00:00Z";

/** Adds the plans and first prices that are missing. What exists, an administrator may have changed: it stays. */
export async function seedPlans(tx: Queryable): Promise<void> {
  for (const [sort, plan] of planCatalogue.entries()) await insertPlan(tx, plan, sort);
  // Asked before and not left to ON CONFLICT: prices of a time that was rated are refused, also those that would change nothing.
  const unpriced = await tx.query<{ code: string }>(sql`
    SELECT code FROM cloud_pod_plans p WHERE code = ANY(${planCatalogue.map(({ code }) => code)})
      AND NOT EXISTS (SELECT FROM cloud_pod_plan_prices WHERE plan_code = p.code AND currency = 'USD')`);
  for (const { code } of unpriced) {
    const plan = planCatalogue.find((known) => known.code === code);
    // A plan that comes with a later release was not sold in the hours that were rated. Others may seed at the same time.
    await tx.execute(sql`
      INSERT INTO cloud_pod_plan_prices (id, plan_code, currency, amount, valid)
      SELECT ${newId()}, ${code}, 'USD', ${plan?.monthlyUsd ?? null},
        tstzrange(greatest(${firstPricesFrom}::timestamptz, max(hour_start) + interval '1 hour'), NULL) FROM usage_hours
      ON CONFLICT DO NOTHING`);
  }
}

async function insertPlan(tx: Queryable, plan: PlanSeed, sort: number): Promise<void> {
  await tx.execute(sql`
    INSERT INTO cloud_pod_plans (code, name, family, description, cores, memory_mb, disk_gb, bandwidth_gb, overage_policy,
      websites_max, emails_max, max_per_tenant, requires_verified_email, features, sort)
    VALUES (${plan.code}, ${plan.name}, ${plan.family}, ${plan.description}, ${plan.cores}, ${plan.memoryMb}, ${plan.diskGb},
      ${plan.bandwidthGb}, ${plan.overagePolicy}, ${plan.websitesMax}, ${plan.emailsMax}, ${plan.maxPerTenant},
      ${plan.requiresVerifiedEmail}, ${JSON.stringify(plan.features)}, ${sort})
    ON CONFLICT (code) DO NOTHING`);
  const { everyHours, keepLast, keepDaily, keepWeekly } = plan.backups;
  await tx.execute(sql`
    INSERT INTO plan_backup_policies (plan_code, every_hours, keep_last, keep_daily, keep_weekly)
    VALUES (${plan.code}, ${everyHours}, ${keepLast}, ${keepDaily}, ${keepWeekly}) ON CONFLICT (plan_code) DO NOTHING`);
}
