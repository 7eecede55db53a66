import type { Logger } from "pino";
import { sql } from "../platform/sql.ts";
import type { accrueMonth } from "../rating/accrual.ts";
import { accrueEach } from "../rating/accrue-each.ts";
import type { AccruedMonth } from "../rating/cost-parts.ts";
import { watchMonthTurn } from "../rating/month-turn.ts";
import { monthStart, yearMonthOf } from "./budget.ts";
import { readEndedMonth } from "./ended-month.ts";
import { giveBackPodsOf, stopPodsOf, type HoldDeps } from "./hold-pods.ts";
import { alertTenant, judgeTenant } from "./judge-tenant.ts";

/** What evaluating needs. */
export interface BudgetDeps extends HoldDeps {
  readonly log: Logger;
  /** The live figures that bills are made of. */
  readonly accrue: typeof accrueMonth;
}

/** What a pass did. */
export interface BudgetReport {
  readonly alerts: number;
  readonly stopped: number;
  readonly givenBack: number;
  readonly failed: number;
}

/** Tenants that are read in one go. */
const tenantsAtOnce = 200;
/** Tenants that are judged at the same time: mostly each waits for the database's answers. */
const judgedAtOnce = 4;

/**
 * Judges the budget of every tenant who can spend or has something to get back. Safe to run at any moment, any
 * number of times and on many replicas at once; one tenant's failure is logged and does not keep the others waiting.
 */
export async function evaluateBudgets(deps: BudgetDeps, now: Date): Promise<BudgetReport> {
  const pass = { month: yearMonthOf(now), isOver: watchMonthTurn(now) };
  const report = { alerts: 0, stopped: 0, givenBack: 0, failed: 0 };
  for (let after: string | null = null; ;) {
    const tenantIds: string[] = await tenantsAfter(deps, after, now);
    if (tenantIds.length === 0 || pass.isOver()) return report;
    const { accrued, failed } = await accrueEach(deps, tenantIds, now);
    report.failed += failed;
    const waiting = [...accrued].toReversed();
    const lane = async (): Promise<void> => {
      for (let next = waiting.pop(); next !== undefined && !pass.isOver(); next = waiting.pop()) {
        const done = await evaluateTenant(deps, ...next, pass);
        for (const what of Object.keys(report) as (keyof BudgetReport)[]) report[what] += done[what] ?? 0; // its own keys
      }
    };
    await Promise.all(Array.from({ length: judgedAtOnce }, lane));
    after = tenantIds.at(-1) ?? null;
  }
}

async function evaluateTenant(
  deps: BudgetDeps,
  tenantId: string,
  spent: AccruedMonth,
  { month, isOver }: { readonly month: string; readonly isOver: () => boolean },
): Promise<Partial<BudgetReport>> {
  let alerts = 0;
  try {
    const judgement = await deps.db.transaction((tx) => judgeTenant(tx, tenantId, spent));
    alerts = judgement?.alerted.length ?? 0;
    return judgement?.stopPods === true
      ? { alerts, stopped: await stopPodsOf(deps, tenantId, month, isOver) }
      : { alerts, givenBack: await giveBackPodsOf(deps, tenantId) };
  } catch (error) {
    deps.log.error({ err: error, tenantId }, "a budget cannot be evaluated");
    return { alerts, failed: 1 };
  }
}

/** An ended month is judged as long as it is waited for: three days until it closes, and one more. */
const judgedAfterMs = 4 * 86_400_000;

/**
 * Judges the month (UTC) before, in the first days of a month, as it is rolled up: its last moments, and what came
 * late. Only alerts are given, each once; nobody is stopped for a month that is over.
 * @returns how many
 */
export async function alertEndedMonth(deps: Pick<BudgetDeps, "db" | "log">, now: Date): Promise<number> {
  const begin = monthStart(now);
  if (now.getTime() - begin.getTime() > judgedAfterMs) return 0;
  const end = new Date(begin.getTime() - 1);
  let alerts = 0;
  for (let after: string | null = null; ;) {
    const tenantIds: string[] = await tenantsAfter(deps, after, end);
    if (tenantIds.length === 0) return alerts;
    for (const [tenantId, spent] of await readEndedMonth(deps.db, tenantIds, yearMonthOf(end))) {
      try {
        alerts += (await deps.db.transaction((tx) => alertTenant(tx, tenantId, spent))).length;
      } catch (error) {
        deps.log.error({ err: error, tenantId }, "a budget of the month before cannot be evaluated");
      }
    }
    after = tenantIds.at(-1) ?? null;
  }
}

async function tenantsAfter({ db }: Pick<BudgetDeps, "db">, after: string | null, now: Date): Promise<string[]> {
  const rows = await db.query<{ id: string }>(sql`
    SELECT b.tenant_id AS id FROM cloud_pod_budgets b
    WHERE (${after}::uuid IS NULL OR b.tenant_id > ${after}::uuid)
      AND (b.exhausted_month IS NOT NULL
        OR EXISTS (SELECT FROM cloud_pods p WHERE p.tenant_id = b.tenant_id
          AND (p.deleted_at IS NULL OR p.deleted_at >= ${monthStart(now)}))
        OR EXISTS (SELECT FROM cloud_pod_holds h WHERE h.tenant_id = b.tenant_id AND h.kind = 'budget' AND h.until IS NULL))
    ORDER BY b.tenant_id LIMIT ${tenantsAtOnce}`);
  return rows.map((row) => row.id);
}
