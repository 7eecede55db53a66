import { isDeepStrictEqual } from "node:util";
import type { Logger } from "pino";
import { DomainError } from "@cloudpods/shared/errors";
import { notifyTenant } from "../notifications/notify-tenant.ts";
import type { Database, Transaction } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";
import type { PodHints } from "../pods/pod-hints.ts";
import { lockPodById } from "../pods/pod.ts";
import type { accrueMonth } from "../rating/accrual.ts";
import { accrueEach } from "../rating/accrue-each.ts";
import { watchMonthTurn } from "../rating/month-turn.ts";
import { bytesOfGb, decideBandwidth, type BandwidthVerdict } from "./decide-bandwidth.ts";
import { bandwidthNews } from "./bandwidth-news.ts";
import { setThrottle } from "./throttle-pod.ts";

/** What evaluating needs. */
export interface BandwidthDeps {
  readonly db: Database;
  readonly hints: PodHints;
  readonly log: Logger;
  /** The live figures that bills are made of. */
  readonly accrue: typeof accrueMonth;
}

/** What a pass did. */
export interface BandwidthReport {
  readonly notices: number;
  readonly throttled: number;
  readonly freed: number;
  readonly failed: number;
}

interface WatchedPod {
  readonly id: string;
  readonly tenantId: string;
  readonly allowanceGb: number | null;
  readonly overagePolicy: "throttle" | "charge" | "none";
  readonly isThrottled: boolean;
  /** Its host refused to change the rate not long ago. */
  readonly hasFailed: boolean;
}

const podsAtOnce = 500;

/**
 * Compares the outgoing traffic of the month (UTC) of every pod that has an allowance, or is slowed because it had
 * one, with that allowance. What a pod sent while it was metered is paid for and does not count. Safe to run at any moment, any number of times and on many replicas at once.
 */
export async function evaluateBandwidth(deps: BandwidthDeps, now: Date): Promise<BandwidthReport> {
  const report = { notices: 0, throttled: 0, freed: 0, failed: 0 };
  const isOver = watchMonthTurn(now);
  for (let after: string | null = null; ;) {
    const pods: WatchedPod[] = await podsAfter(deps.db, after);
    if (pods.length === 0) return report;
    const { accrued, failed } = await accrueEach(deps, [...new Set(pods.map(({ tenantId }) => tenantId))], now);
    report.failed += failed;
    for (const pod of pods) {
      const month = accrued.get(pod.tenantId);
      if (month === undefined) continue;
      if (isOver()) return report;
      const usedBytes = month.perPod.find(({ podId }) => podId === pod.id)?.planOutBytes ?? 0n;
      try {
        const done = await actOn(deps, pod, usedBytes, { yearMonth: month.yearMonth, isOver });
        for (const [what, count] of Object.entries(done)) report[what as keyof typeof done] += count; // its own keys
      } catch (error) {
        // Work began in between: the next pass finds it finished.
        if (error instanceof DomainError && error.code === "POD_BUSY") continue;
        report.failed += 1;
        deps.log.error({ err: error, podId: pod.id }, "the traffic of a pod cannot be evaluated");
      }
    }
    after = pods.at(-1)?.id ?? null;
  }
}

async function podsAfter(db: Database, after: string | null): Promise<WatchedPod[]> {
  return await db.query<WatchedPod>(
    sql`${watched(sql`${after}::uuid IS NULL OR p.id > ${after}::uuid`)} ORDER BY id LIMIT ${podsAtOnce}`,
  );
}

/** Those of active pods that are looked at. */
function watched(which: Sql): Sql {
  return sql`
    SELECT * FROM (
      SELECT p.id, p.tenant_id AS "tenantId", CASE WHEN p.billing_mode = 'plan' THEN plan.bandwidth_gb END AS "allowanceGb",
        coalesce(plan.overage_policy, 'none') AS "overagePolicy",
        EXISTS (SELECT FROM cloud_pod_holds h WHERE h.pod_id = p.id AND h.kind = 'bandwidth' AND h.until IS NULL) AS "isThrottled",
        EXISTS (SELECT FROM cloud_pod_provisioning_tasks t WHERE t.pod_id = p.id AND t.type = 'set-rate' AND t.state = 'failed'
          AND t.finished_at > now() - interval '1 day') AS "hasFailed"
      FROM cloud_pods p LEFT JOIN cloud_pod_plans plan ON plan.code = p.plan_code
      WHERE (${which}) AND p.status = 'active') AS active
    WHERE "allowanceGb" IS NOT NULL OR "isThrottled" OR "hasFailed"`;
}

async function actOn(
  { db, hints }: BandwidthDeps,
  pod: WatchedPod,
  usedBytes: bigint,
  { yearMonth, isOver }: { readonly yearMonth: string; readonly isOver: () => boolean },
): Promise<{ notices: number; throttled: number; freed: number }> {
  const verdict = decideBandwidth({ ...pod, usedBytes });
  // Apart from the throttle, which waits for other work on the pod.
  const notices =
    verdict.reached.length === 0 ? 0 : await db.transaction((tx) => tell(tx, pod, usedBytes, yearMonth, verdict));
  // Most pods are as they shall be: their rows are not locked every minute for it.
  if (verdict.throttle === pod.isThrottled && !pod.hasFailed) return { notices, throttled: 0, freed: 0 };
  const change = await db.transaction(async (tx) => {
    const locked = await lockPodById(tx, pod.id);
    // Another plan, another month or another replica may have come first: the next pass decides on what is then.
    const [still] = await tx.query<WatchedPod>(watched(sql`p.id = ${pod.id}`));
    return isOver() || !isDeepStrictEqual(still, pod) ? undefined : await setThrottle(tx, locked, verdict.throttle);
  });
  if (change !== undefined) hints.workQueued(change.task.id, null);
  return {
    notices,
    throttled: change?.kind === "throttled" ? 1 : 0,
    freed: change?.kind === "freed" ? 1 : 0,
  };
}

/** One notice for each mark that is reached, given by the constraint alone, with its message. */
async function tell(
  tx: Transaction,
  pod: WatchedPod,
  usedBytes: bigint,
  yearMonth: string,
  verdict: BandwidthVerdict,
): Promise<number> {
  let told = 0;
  for (const percent of verdict.reached) {
    const allowanceBytes = bytesOfGb(pod.allowanceGb ?? 0);
    const added = await tx.execute(sql`
      INSERT INTO cloud_pod_bandwidth_notices (tenant_id, pod_id, year_month, percent, used_bytes, allowance_bytes)
      VALUES (${pod.tenantId}, ${pod.id}, ${yearMonth}, ${percent}, ${usedBytes}, ${allowanceBytes}) ON CONFLICT DO NOTHING`);
    if (added === 0) continue;
    told += 1;
    const [names] = await tx.query<{ name: string; vmid: number }>(
      sql`SELECT name, vmid FROM cloud_pods WHERE id = ${pod.id}`,
    );
    await notifyTenant(
      tx,
      bandwidthNews({
        ...pod,
        name: names?.name ?? pod.id,
        vmid: names?.vmid ?? 0,
        usedBytes,
        allowanceBytes,
        yearMonth,
        percent,
      }),
    );
  }
  return told;
}
