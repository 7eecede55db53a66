import { DomainError } from "@cloudpods/shared/errors";
import { newId } from "@cloudpods/shared/ids";
import { checkVersion } from "../http/version-check.ts";
import { sqlState, violatedConstraint, type Queryable, type Transaction } from "../platform/database.ts";
import { joinSql, sql, type Sql } from "../platform/sql.ts";
import { readPlan, type Plan } from "./resolve-plan.ts";

/** What an administrator decides about a plan, besides its price. */
export interface PlanTerms extends Omit<Plan, "code" | "prices" | "version"> {
  readonly isActive: boolean;
  /** Place in lists, lowest first. */
  readonly sort: number;
}

/** Terms to change; what is undefined stays. */
export type PlanTermChanges = { readonly [Name in keyof PlanTerms]?: PlanTerms[Name] | undefined };

/** A monthly price from a time on. */
export interface PlanPriceChange {
  /** Decimal with at most ten places. */
  readonly amount: string;
  readonly currency: string;
  /** Undefined: from now on. */
  readonly from: Date | undefined;
}

/** Columns of the terms. */
const columns = {
  name: sql`name`,
  family: sql`family`,
  description: sql`description`,
  cores: sql`cores`,
  memoryMb: sql`memory_mb`,
  swapMb: sql`swap_mb`,
  diskGb: sql`disk_gb`,
  bandwidthGb: sql`bandwidth_gb`,
  overagePolicy: sql`overage_policy`,
  websitesMax: sql`websites_max`,
  emailsMax: sql`emails_max`,
  maxPerTenant: sql`max_per_tenant`,
  requiresVerifiedEmail: sql`requires_verified_email`,
  features: sql`features`,
  isActive: sql`is_active`,
  sort: sql`sort`,
} as const satisfies Record<keyof PlanTerms, Sql>;

/** What customers have bought: it cannot change under them, so a plan that was sold keeps it. */
const sold = ["family", "cores", "memoryMb", "swapMb", "diskGb", "bandwidthGb", "overagePolicy"] as const;

/**
 * Adds a plan.
 * @throws DomainError `already-exists` PLAN_EXISTS
 */
export async function createPlan(
  tx: Transaction,
  code: string,
  terms: PlanTerms,
  price: Omit<PlanPriceChange, "from">,
): Promise<void> {
  const names = termNames(terms);
  const made = await tx.execute(sql`
    INSERT INTO cloud_pod_plans (code, ${joinSql(
      names.map((name) => columns[name]),
      sql`, `,
    )})
    VALUES (${code}, ${joinSql(
      names.map((name) => valueOf(terms, name)),
      sql`, `,
    )}) ON CONFLICT (code) DO NOTHING`);
  if (made === 0) throw new DomainError("already-exists", "PLAN_EXISTS", `There is a plan ${code} already.`);
  await setPrice(tx, code, { ...price, from: undefined });
}

/**
 * Changes a plan. Its price changes by a new row from a time on; what was charged before stays as it was.
 * @throws DomainError `not-found` PLAN_NOT_FOUND · `precondition-failed` VERSION_MISMATCH · `wrong-state` PLAN_IN_USE when a plan that was sold would become another
 *   one · `invalid` PRICE_IN_THE_PAST · `conflict` PLAN_PRICE_SCHEDULED · PLAN_PRICE_USED
 */
export async function changePlan(
  tx: Transaction,
  code: string,
  changes: PlanTermChanges,
  price: PlanPriceChange | undefined,
  ifMatch: number | undefined,
): Promise<void> {
  // Orders hold the row's key until they commit, so from here on it is known who has the plan.
  await tx.query(sql`SELECT FROM cloud_pod_plans WHERE code = ${code} FOR UPDATE`);
  const plan = await readPlan(tx, code);
  if (plan === undefined) throw new DomainError("not-found", "PLAN_NOT_FOUND", "There is no such plan.");
  checkVersion(ifMatch, plan.version);
  const different = sold.filter((name) => changes[name] !== undefined && changes[name] !== plan[name]);
  if (different.length > 0 && (await isSold(tx, code))) {
    throw new DomainError(
      "wrong-state",
      "PLAN_IN_USE",
      "Customers have this plan. Add another plan with the new terms and make this one inactive.",
      { details: { fields: different } },
    );
  }
  const assignments = termNames(changes).map((name) => sql`${columns[name]} = ${valueOf(changes, name)}`);
  await tx.execute(
    sql`UPDATE cloud_pod_plans SET ${joinSql([...assignments, sql`version = version + 1`], sql`, `)} WHERE code = ${code}`,
  );
  if (price !== undefined) await setPrice(tx, code, price);
}

function termNames(terms: PlanTermChanges): (keyof PlanTerms)[] {
  // Only these names are columns, whatever else an object carries.
  return (Object.keys(columns) as (keyof PlanTerms)[]).filter((name) => terms[name] !== undefined);
}

function valueOf(terms: PlanTermChanges, name: keyof PlanTerms): Sql {
  const value = terms[name];
  return name === "features" ? sql`${JSON.stringify(value)}` : sql`${value}`;
}

async function isSold(tx: Queryable, code: string): Promise<boolean> {
  const [row] = await tx.query<{ sold: boolean }>(sql`
    SELECT EXISTS (SELECT FROM cloud_pods WHERE plan_code = ${code})
        OR EXISTS (SELECT FROM cloud_pod_allocations WHERE plan_code = ${code}) AS sold`);
  return row?.sold ?? false;
}

/** Ends the price in force and begins the new one at the same instant. */
async function setPrice(tx: Transaction, code: string, { amount, currency, from }: PlanPriceChange): Promise<void> {
  const [past] = await tx.query(sql`SELECT WHERE ${from ?? null}::timestamptz < now()`);
  if (past !== undefined) {
    throw new DomainError("invalid", "PRICE_IN_THE_PAST", "A price cannot change for a time that has passed.", {
      errors: [{ pointer: "/price/from", detail: "must not lie in the past" }],
    });
  }
  const begins = from === undefined ? sql`now()` : sql`${from}::timestamptz`;
  try {
    await tx.execute(sql`
      UPDATE cloud_pod_plan_prices SET valid = tstzrange(lower(valid), ${begins})
      WHERE plan_code = ${code} AND currency = ${currency} AND valid @> ${begins} AND lower(valid) < ${begins} AND upper_inf(valid)`);
    await tx.execute(sql`
      INSERT INTO cloud_pod_plan_prices (id, plan_code, currency, amount, valid)
      VALUES (${newId()}, ${code}, ${currency}, ${amount}, tstzrange(${begins}, NULL))`);
  } catch (error) {
    if (sqlState(error) === "CP002") {
      throw new DomainError(
        "conflict",
        "PLAN_PRICE_USED",
        "Usage of that time was rated already. Choose a later time.",
      );
    }
    if (violatedConstraint(error) !== "one_plan_price_at_a_time") throw error;
    throw new DomainError("conflict", "PLAN_PRICE_SCHEDULED", "A later price of this plan is decided already.");
  }
}
