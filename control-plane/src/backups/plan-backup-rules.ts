import { DomainError } from "@cloudpods/shared/errors";
import type { Logger } from "pino";
import type { Database, Queryable, Transaction } from "../platform/database.ts";
import { eachByItself } from "../platform/each-by-itself.ts";
import { sql } from "../platform/sql.ts";
import { lockPodById } from "../pods/pod.ts";
import { followPlan, rulesOfPlan, type BackupRules } from "./backup-policy.ts";

/** Pods that one pass brings in line with their plans. */
const batchMax = 500;

/** What comes with a plan; version 0 while nobody has decided. */
export async function readPlanRules(
  db: Queryable,
  planCode: string,
): Promise<BackupRules & { readonly version: number }> {
  const [row] = await db.query<{ version: number }>(
    sql`SELECT version FROM plan_backup_policies WHERE plan_code = ${planCode}`,
  );
  const { enabled, everyHours, keepLast, keepDaily, keepWeekly } = await rulesOfPlan(db, planCode);
  return { enabled, everyHours, keepLast, keepDaily, keepWeekly, version: row?.version ?? 0 };
}

/** Locks a plan, so that two who change its rules come one after the other. @throws DomainError `PLAN_NOT_FOUND` */
export async function lockPlan(tx: Transaction, planCode: string): Promise<void> {
  const rows = await tx.query(sql`SELECT FROM cloud_pod_plans WHERE code = ${planCode} FOR NO KEY UPDATE`);
  if (rows.length === 0) throw new DomainError("not-found", "PLAN_NOT_FOUND", "There is no such plan.");
}

/** Decides what comes with a locked plan. */
export async function writePlanRules(tx: Transaction, planCode: string, rules: BackupRules): Promise<void> {
  const { enabled, everyHours, keepLast, keepDaily, keepWeekly } = rules;
  await tx.execute(sql`
    INSERT INTO plan_backup_policies AS p (plan_code, enabled, every_hours, keep_last, keep_daily, keep_weekly)
    VALUES (${planCode}, ${enabled}, ${everyHours}, ${keepLast}, ${keepDaily}, ${keepWeekly})
    ON CONFLICT (plan_code) DO UPDATE SET enabled = excluded.enabled, every_hours = excluded.every_hours, keep_last = excluded.keep_last,
      keep_daily = excluded.keep_daily, keep_weekly = excluded.keep_weekly, version = p.version + 1`);
}

/**
 * Brings pods in line with plans whose rules have changed: those that follow their plan, and those whose owners chose
 * more than it comes with now.
 * @returns how many have other rules now
 */
export async function followPlans({ db, log }: { readonly db: Database; readonly log: Logger }): Promise<number> {
  const behind = await db.query<{ podId: string }>(sql`
    SELECT q.pod_id AS "podId" FROM cloud_pod_backup_policies q JOIN cloud_pods p ON p.id = q.pod_id
      JOIN plan_backup_policies r ON r.plan_code = p.plan_code
    WHERE p.status IN ('active', 'suspended') AND CASE q.source
      WHEN 'plan' THEN (q.enabled, q.every_hours, q.keep_last, q.keep_daily, q.keep_weekly) <> (r.enabled, r.every_hours, r.keep_last, r.keep_daily, r.keep_weekly)
      ELSE (q.enabled AND NOT r.enabled) OR q.every_hours < r.every_hours
        OR q.keep_last + q.keep_daily + q.keep_weekly > r.keep_last + r.keep_daily + r.keep_weekly END
    ORDER BY q.pod_id LIMIT ${batchMax}`);
  const telling = {
    log,
    message: "the rules for a pod's backups could not follow its plan",
    fields: ({ podId }: { podId: string }) => ({ podId }),
  };
  const failed = await eachByItself(behind, telling, ({ podId }) =>
    // The time when it is done: a backup whose time has passed since the list was made shall not be due once more.
    db.transaction(async (tx) => await followPlan(tx, await lockPodById(tx, podId), new Date())),
  );
  return behind.length - failed;
}
