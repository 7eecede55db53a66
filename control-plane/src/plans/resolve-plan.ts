import { DomainError } from "@cloudpods/shared/errors";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import { matchPlanCode } from "./match-plan-code.ts";

/** A plan on offer. */
export interface Plan {
  readonly code: string;
  readonly name: string;
  readonly family: "shared" | "managed";
  readonly description: string;
  readonly cores: number;
  readonly memoryMb: number;
  readonly swapMb: number;
  readonly diskGb: number;
  /** Per month; null: unmetered. */
  readonly bandwidthGb: number | null;
  /** What happens beyond the bandwidth. */
  readonly overagePolicy: "throttle" | "charge" | "none";
  /** Null: not limited. */
  readonly websitesMax: number | null;
  readonly emailsMax: number | null;
  /** Null: as many as the quota allows. */
  readonly maxPerTenant: number | null;
  readonly requiresVerifiedEmail: boolean;
  readonly features: readonly string[];
  /** Of the terms and prices. */
  readonly version: number;
  /** Per month, in force now, one for each currency. */
  readonly prices: readonly PlanPrice[];
}

/** A monthly price. */
export interface PlanPrice {
  /** Decimal with at least two places. */
  readonly amount: string;
  readonly currency: string;
}

/** The plans that can be ordered, in the order in which they are shown. Works under both logins. */
export async function listPlans(db: Queryable): Promise<Plan[]> {
  return await selectPlans(db, sql`p.is_active`);
}

/** A plan by its exact code, also one that cannot be ordered; undefined when there is none. */
export async function readPlan(db: Queryable, code: string): Promise<(Plan & { isActive: boolean }) | undefined> {
  const [plan] = await selectPlans(db, sql`p.code = ${code}`);
  return plan;
}

async function selectPlans(db: Queryable, condition: Sql): Promise<(Plan & { isActive: boolean })[]> {
  const plans = await db.query<Plan & { isActive: boolean }>(sql`
    SELECT p.code, p.name, p.family, p.description, p.cores, p.memory_mb AS "memoryMb", p.swap_mb AS "swapMb", p.disk_gb AS "diskGb",
      p.bandwidth_gb AS "bandwidthGb", p.overage_policy AS "overagePolicy", p.websites_max AS "websitesMax", p.emails_max AS "emailsMax",
      p.max_per_tenant AS "maxPerTenant", p.requires_verified_email AS "requiresVerifiedEmail", p.features, p.is_active AS "isActive", p.version,
      coalesce((SELECT json_agg(json_build_object('amount', price.amount::text, 'currency', price.currency) ORDER BY price.currency)
        FROM cloud_pod_plan_prices price WHERE price.plan_code = p.code AND price.valid @> now()), '[]') AS prices
    FROM cloud_pod_plans p WHERE ${condition} ORDER BY p.sort, p.code`);
  return plans.map((plan) => ({
    ...plan,
    prices: plan.prices.map(({ amount, currency }) => ({ amount: withoutTrailingZeros(amount), currency })),
  }));
}

/**
 * The plan that a code or its unambiguous short form names, whatever its case.
 * @throws DomainError `not-found` PLAN_NOT_FOUND, with the codes that exist
 */
export async function resolvePlan(db: Queryable, code: string): Promise<Plan> {
  const plans = await listPlans(db);
  const codes = plans.map((plan) => plan.code);
  const matched = matchPlanCode(codes, code);
  const plan = plans.find((candidate) => candidate.code === matched);
  if (plan === undefined) {
    throw new DomainError("not-found", "PLAN_NOT_FOUND", "There is no such plan.", { details: { plans: codes } });
  }
  return plan;
}

/** As `matchPlanCode` among all plans, also those that cannot be ordered any more; a code that fits none stays as it is. */
export async function meantPlanCode(db: Queryable, meant: string): Promise<string> {
  const plans = await db.query<{ code: string }>(sql`SELECT code FROM cloud_pod_plans`);
  const codes = plans.map(({ code }) => code);
  return matchPlanCode(codes, meant) ?? meant;
}

/** `1.4900000000` as `1.49`, but never fewer than two places. */
function withoutTrailingZeros(amount: string): string {
  return amount.replace(/(\.\d{2}\d*?)0+$/, "$1");
}
