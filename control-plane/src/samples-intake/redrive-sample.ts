import { Sample } from "@cloudpods/shared/gen/cloudpods/agent/v1/telemetry";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { GroupRows, withDays } from "./group-rows.ts";
import { hostingCache } from "./hosting.ts";
import { judgeSample, type RejectionReason } from "./judge-sample.ts";
import { letterNotFound, letterRetried, refusing, stillRefused } from "./redrive-refusals.ts";
import { writeCoverageAndWatermarks } from "./side-rows.ts";
import { transactionDeadlineMs } from "./store-messages.ts";
import type { StorePool } from "./store-pool.ts";
import { lockOpenDays, mayOpenDay, usageDays } from "./usage-days.ts";

/** Where a sample went that counts now. */
export interface RedrivenSample {
  readonly podId: string;
  /** Of the pod. */
  readonly tenantId: string | undefined;
  /** Its day was sealed: it is merged into the figures that are frozen. */
  readonly isLate: boolean;
}

interface RejectedRow {
  readonly nodeId: string;
  readonly spoolNo: number;
  readonly seq: bigint;
  readonly sample: unknown;
  readonly isRetried: boolean;
  readonly isNodeRemoved: boolean;
  readonly isSpoolRefused: boolean;
}

/**
 * Judges a rejected sample again and stores it when it counts now, for instance because a placement was
 * corrected. Mark, sample and the marks of its hours are one transaction; it counts at most once.
 * @param record runs in that transaction
 * @throws DomainError `DEAD_LETTER_NOT_FOUND`, `DEAD_LETTER_RETRIED`, `DEAD_LETTER_STILL_REFUSED` with the reason
 */
export async function redriveSample(
  pool: StorePool,
  id: string,
  record: (tx: Queryable, redriven: RedrivenSample) => Promise<void>,
): Promise<RedrivenSample> {
  const [row] = await pool.query<RejectedRow>(sql`
    SELECT r.node_id AS "nodeId", r.spool_no AS "spoolNo", r.seq, r.sample, r.retried_at IS NOT NULL AS "isRetried",
      n.removed_at IS NOT NULL AS "isNodeRemoved", s.refused_since IS NOT NULL AS "isSpoolRefused"
    FROM usage_rejected_samples r JOIN node_spools s ON s.spool_no = r.spool_no JOIN nodes n ON n.id = r.node_id WHERE r.id = ${id}`);
  if (row === undefined) throw letterNotFound();
  if (row.isRetried) throw letterRetried();
  const sample = Sample.fromJSON(row.sample);
  const nowMs = Date.now();
  const reason = await judgeAgain(pool, row, sample, nowMs);
  if (reason !== undefined) throw stillRefused(reason);
  const judged = withDays(sample);
  const days = [...new Set([judged.firstDay, judged.lastDay])];
  await usageDays(pool).make(days.filter((day) => mayOpenDay(day, nowMs)));
  return await refusing(() =>
    pool.transaction(transactionDeadlineMs, async (tx) => {
      // Whoever comes second waits here and finds the mark.
      const marked = await tx.execute(
        sql`UPDATE usage_rejected_samples SET retried_at = clock_timestamp() WHERE id = ${id} AND retried_at IS NULL`,
      );
      if (marked === 0) throw letterRetried();
      const rows = new GroupRows(await lockOpenDays(tx, days), 1);
      rows.add(row, judged);
      await rows.copyTo(tx);
      await writeCoverageAndWatermarks(tx, { coverage: [], dirtyHours: rows.dirtyHours(), changes: [] });
      const [pod] = await tx.query<{ tenantId: string }>(
        sql`SELECT tenant_id AS "tenantId" FROM cloud_pods WHERE id = ${sample.podId}`,
      );
      const redriven = { podId: sample.podId, tenantId: pod?.tenantId, isLate: rows.late.count > 0 };
      await record(tx, redriven);
      return redriven;
    }),
  );
}

async function judgeAgain(
  db: Queryable,
  { nodeId, isNodeRemoved, isSpoolRefused }: RejectedRow,
  sample: Sample,
  nowMs: number,
): Promise<RejectionReason | undefined> {
  if (isSpoolRefused) return "CERTIFICATE_REVOKED";
  const stays = await hostingCache(db, () => nowMs).lookUp([{ nodeId, podId: sample.podId }]);
  return judgeSample(sample, isNodeRemoved, stays.get(`${nodeId}/${sample.podId}`), nowMs);
}
