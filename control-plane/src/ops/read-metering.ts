import type { NodeState } from "../nodes/node-state.ts";
import type { Queryable } from "../platform/database.ts";
import { sql, type Sql } from "../platform/sql.ts";

/** A host whose samples are not there yet. */
export interface HostBehind {
  readonly id: string;
  readonly name: string;
  readonly state: NodeState;
  readonly completeUntil: Date;
  readonly lagSeconds: number;
  readonly spoolDepth: number | null;
  readonly spoolOldestAt: Date | null;
}

/** How far the samples of all hosts are behind. */
export interface MeteringLag {
  readonly hosts: number;
  readonly neverReported: number;
  /** Of hosts that can be heard; null without any that has ever reported. */
  readonly p50Seconds: number | null;
  readonly p95Seconds: number | null;
  readonly maxSeconds: number | null;
  /** Batches on all hosts, and on the host with the most. */
  readonly spoolTotal: number;
  readonly spoolMax: number;
  readonly spoolOldestAt: Date | null;
}

/** What waits to be rolled up. */
export interface RollUpState {
  readonly rolledUpTo: Date | null;
  readonly dirtyHours: number;
  readonly oldestDirtyHour: Date | null;
  readonly dirtyDays: number;
  readonly dirtyMonths: number;
  readonly lostBatches: number;
}

/** The last nightly proof. */
export interface Verification {
  readonly yearMonth: string;
  readonly verifiedAt: Date;
  readonly findings: number;
}

const behindShown = 10;

/** Hypervisors with the instant up to which all their samples are there. */
const meteredHosts: Sql = sql`
  SELECT n.id, n.name, s.state, s.spool_depth::float8 AS "spoolDepth", s.spool_oldest_at AS "spoolOldestAt", w.complete_until AS "completeUntil",
    date_part('epoch', now() - w.complete_until)::integer AS "lagSeconds"
  FROM nodes n JOIN node_status s ON s.node_id = n.id LEFT JOIN (
    SELECT node_id, max(complete_until) AS complete_until FROM node_spools WHERE refused_since IS NULL GROUP BY node_id) w ON w.node_id = n.id
  WHERE n.role = 'hypervisor' AND n.removed_at IS NULL`;

/** How far behind samples are, over all hypervisors. */
export async function readMeteringLag(db: Queryable): Promise<MeteringLag> {
  const [lag] = await db.query<MeteringLag>(sql`
    SELECT hosts, "neverReported", lags[1] AS "p50Seconds", lags[2] AS "p95Seconds", lags[3] AS "maxSeconds", "spoolTotal", "spoolMax", "spoolOldestAt"
    FROM (SELECT count(*)::integer AS hosts, count(*) FILTER (WHERE "completeUntil" IS NULL)::integer AS "neverReported",
        percentile_disc(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY "lagSeconds") FILTER (WHERE state IN ('online', 'degraded')) AS lags,
        coalesce(sum("spoolDepth"), 0) AS "spoolTotal", coalesce(max("spoolDepth"), 0) AS "spoolMax", min("spoolOldestAt") AS "spoolOldestAt"
      FROM (${meteredHosts}) AS hosts) AS fleet`);
  if (lag === undefined) throw new Error("an aggregate has no row");
  return lag;
}

/** The hosts that are furthest behind, from five minutes on. */
export async function readHostsBehind(db: Queryable): Promise<HostBehind[]> {
  return await db.query<HostBehind>(sql`
    SELECT * FROM (${meteredHosts}) AS hosts WHERE "lagSeconds" >= 300 ORDER BY "lagSeconds" DESC, name LIMIT ${behindShown}`);
}

/** What waits to be rolled up. The marks of an hour are many: from each hour the next one is looked up. */
export async function readRollUpState(db: Queryable): Promise<RollUpState> {
  const [state] = await db.query<RollUpState>(sql`
    WITH RECURSIVE hours AS (
      (SELECT hour_start FROM usage_dirty_hours ORDER BY hour_start LIMIT 1)
      UNION ALL
      SELECT (SELECT d.hour_start FROM usage_dirty_hours d WHERE d.hour_start > h.hour_start ORDER BY d.hour_start LIMIT 1) FROM hours h
      WHERE h.hour_start IS NOT NULL)
    SELECT (SELECT max(hour_start) + interval '1 hour' FROM usage_hours) AS "rolledUpTo",
      count(hour_start)::integer AS "dirtyHours", min(hour_start) AS "oldestDirtyHour",
      (SELECT count(DISTINCT date)::integer FROM usage_dirty_days) AS "dirtyDays",
      (SELECT count(DISTINCT year_month)::integer FROM usage_dirty_months) AS "dirtyMonths",
      (SELECT coalesce(sum(seq_to - seq_from + 1), 0)::float8 FROM node_spool_gaps WHERE noticed_at > now() - interval '24 hours') AS "lostBatches"
    FROM hours WHERE hour_start <= now() - interval '1 hour'`);
  if (state === undefined) throw new Error("an aggregate has no row");
  return state;
}

/** The last proof that usage adds up; undefined before the first. */
export async function readLastVerification(db: Queryable): Promise<Verification | undefined> {
  const [last] = await db.query<Verification>(sql`
    SELECT year_month AS "yearMonth", verified_at AS "verifiedAt", findings_count AS findings FROM usage_verifications
    ORDER BY verified_at DESC, findings_count DESC LIMIT 1`);
  return last;
}
