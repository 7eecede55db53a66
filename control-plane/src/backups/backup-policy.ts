import { DomainError } from "@cloudpods/shared/errors";
import { z } from "zod";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Pod } from "../pods/pod.ts";
import { nextBackupAt } from "./schedule.ts";

/** How often a pod is backed up and how many of those backups stay; see `backupsToPrune`. */
export interface BackupRules {
  readonly enabled: boolean;
  readonly everyHours: number;
  readonly keepLast: number;
  readonly keepDaily: number;
  readonly keepWeekly: number;
}

/** The rules of one pod. */
export interface BackupPolicy extends BackupRules {
  /** `plan`: they change with the plan. */
  readonly source: "plan" | "tenant";
  readonly nextAt: Date | null;
  /** 0: the pod has no rules of its own yet. */
  readonly version: number;
}

/** What a customer may choose of the rules, with an order or later. */
export const backupWish = z.strictObject({
  enabled: z.boolean().optional(),
  everyHours: z.number().int().min(1).max(744).optional(),
  keepLast: z.number().int().min(1).max(100).optional(),
  keepDaily: z.number().int().min(0).max(100).optional(),
  keepWeekly: z.number().int().min(0).max(100).optional(),
});
export type BackupWish = z.infer<typeof backupWish>;

/** Of pods that are paid by use, and of plans that name nothing. */
const defaultRules: BackupRules = { enabled: true, everyHours: 24, keepLast: 3, keepDaily: 7, keepWeekly: 0 };

/** What comes with a plan; null: with resources of one's own. */
export async function rulesOfPlan(tx: Queryable, planCode: string | null): Promise<BackupRules> {
  const [rules] = await tx.query<BackupRules>(sql`
    SELECT enabled, every_hours AS "everyHours", keep_last AS "keepLast", keep_daily AS "keepDaily", keep_weekly AS "keepWeekly"
    FROM plan_backup_policies WHERE plan_code = ${planCode}`);
  return rules ?? defaultRules;
}

/**
 * The plan's rules with a customer's changes.
 * @throws DomainError `PLAN_WITHOUT_BACKUPS` for a schedule where the plan comes with none, `BACKUP_POLICY_BEYOND_PLAN`
 *   for more backups, or more often, than it comes with
 */
export function chosenRules(plan: BackupRules, wish: BackupWish, pointer: string): BackupRules {
  const rules = withWish(plan, wish);
  const fault = faultOf(plan, rules);
  if (fault === undefined) return rules;
  throw new DomainError("invalid", fault.code, fault.detail, {
    details: { everyHoursMin: plan.everyHours, keptMax: kept(plan) },
    errors: [{ pointer: `${pointer}/${fault.member}`, detail: fault.detail }],
  });
}

/** The plan's rules with what a customer chose instead. */
export function withWish(plan: BackupRules, wish: BackupWish): BackupRules {
  return { ...plan, ...Object.fromEntries(Object.entries(wish).filter(([, value]) => value !== undefined)) };
}

function faultOf(
  plan: BackupRules,
  rules: BackupRules,
): { readonly code: string; readonly member: string; readonly detail: string } | undefined {
  if (rules.enabled && !plan.enabled) {
    const detail = "The plan comes without backups by a schedule; one can be asked for at any time.";
    return { code: "PLAN_WITHOUT_BACKUPS", member: "enabled", detail };
  }
  const code = "BACKUP_POLICY_BEYOND_PLAN";
  if (rules.everyHours < plan.everyHours) {
    const detail = `The plan comes with a backup every ${plan.everyHours} hours at most.`;
    return { code, member: "everyHours", detail };
  }
  if (kept(rules) <= kept(plan)) return undefined;
  const detail = `The plan comes with ${kept(plan)} kept backups; these rules may keep more.`;
  return { code, member: "keepLast", detail };
}

function kept({ keepLast, keepDaily, keepWeekly }: BackupRules): number {
  return keepLast + keepDaily + keepWeekly;
}

/** The rules of a pod; those of its plan while it has none. */
export async function readPolicy(tx: Queryable, pod: Pod, lock = false): Promise<BackupPolicy> {
  const [policy] = await tx.query<BackupPolicy>(sql`
    SELECT enabled, every_hours AS "everyHours", keep_last AS "keepLast", keep_daily AS "keepDaily", keep_weekly AS "keepWeekly",
      source, CASE WHEN enabled THEN next_at END AS "nextAt", version
    FROM cloud_pod_backup_policies WHERE pod_id = ${pod.id} ${lock ? sql`FOR UPDATE` : sql``}`);
  return policy ?? { ...(await rulesOfPlan(tx, pod.planCode)), source: "plan", nextAt: null, version: 0 };
}

/** Gives a pod rules, or others; the next backup keeps its place in the period. */
export async function writePolicy(
  tx: Queryable,
  pod: Pick<Pod, "id" | "tenantId">,
  rules: BackupRules,
  source: BackupPolicy["source"],
  now: Date,
): Promise<void> {
  const { enabled, everyHours, keepLast, keepDaily, keepWeekly } = rules;
  await tx.execute(sql`
    INSERT INTO cloud_pod_backup_policies AS p (pod_id, tenant_id, enabled, every_hours, keep_last, keep_daily, keep_weekly, source, next_at)
    VALUES (${pod.id}, ${pod.tenantId}, ${enabled}, ${everyHours}, ${keepLast}, ${keepDaily}, ${keepWeekly}, ${source},
      ${nextBackupAt(pod.id, everyHours, now)})
    ON CONFLICT (pod_id) DO UPDATE SET enabled = excluded.enabled, every_hours = excluded.every_hours, keep_last = excluded.keep_last,
      keep_daily = excluded.keep_daily, keep_weekly = excluded.keep_weekly, source = excluded.source, next_at = excluded.next_at,
      version = p.version + 1`);
}

/**
 * The rules follow a new plan, unless the customer chose his own; those too when the new plan comes with less. The
 * pod's row has the new plan already.
 */
export async function followPlan(tx: Queryable, pod: Pod, now: Date): Promise<void> {
  const [before, plan] = [await readPolicy(tx, pod, true), await rulesOfPlan(tx, pod.planCode)];
  if (before.version === 0) return;
  const staysChosen = before.source === "tenant" && faultOf(plan, before) === undefined;
  const isSame = (["enabled", "everyHours", "keepLast", "keepDaily", "keepWeekly"] as const).every(
    (rule) => before[rule] === plan[rule],
  );
  if (!staysChosen && !isSame) await writePolicy(tx, pod, plan, "plan", now);
}
