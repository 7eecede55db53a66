import { recordConditionEvents, type ConditionChange } from "../nodes/node-conditions.ts";
import type { Database, Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import {
  clockSkewMs,
  conditionsOf,
  heartbeatConditionKinds,
  seemsSlow,
  type ReceivedHeartbeat,
} from "./read-heartbeat.ts";
import type { SpoolKey } from "./spool-rows.ts";
import { refuseSpools, trustSpools } from "./trusted-spools.ts";

/** A node's word, or its last will, about whether it is connected to the broker. */
export interface ReceivedPresence {
  readonly nodeId: string;
  readonly online: boolean;
}

/** What became of heartbeats and presences. */
export interface HeartbeatsWritten {
  /** Heartbeats that were not believed. */
  readonly refused: number;
  /** Hosts whose row somebody holds at the moment: nothing of them was written. */
  readonly busy: ReadonlySet<string>;
}

/**
 * Writes the newest heartbeat of each node, one row a minute for the curves, the conditions that
 * heartbeats show, and presence. A heartbeat of a removed node or under a certificate that is revoked or not
 * this node's is not believed; under a revoked one the samples of its spool are not either, until a valid
 * one names it. No host waits for another one: who is busy is left out.
 */
export async function writeHeartbeats(
  database: Database,
  heartbeats: readonly ReceivedHeartbeat[],
  presences: readonly ReceivedPresence[],
): Promise<HeartbeatsWritten> {
  return await database.transaction(async (tx) => {
    const busy = await lockStatuses(tx, [...heartbeats, ...presences]);
    const isFree = ({ nodeId }: { readonly nodeId: string }): boolean => !busy.has(nodeId);
    const [free, freePresences] = [heartbeats.filter(isFree), presences.filter(isFree)];
    const { accepted, revoked } = await judgeHeartbeats(tx, free);
    if (accepted.length > 0) {
      const skewsBefore = await readSkews(tx, accepted);
      await writeStatus(tx, accepted);
      await writeNodeSamples(tx, accepted);
      await writeConditions(tx, accepted, skewsBefore);
    }
    if (freePresences.length > 0) await writePresences(tx, freePresences);
    await refuseSpools(tx, spoolsOf(revoked));
    await trustSpools(tx, spoolsOf(accepted));
    return { refused: free.length - accepted.length, busy };
  });
}

/**
 * The order of all who change hosts: statuses before anything else. Whoever begins a session holds the host's status
 * when it names its spool. A batch that waited for one host would keep all its others locked meanwhile, and whoever waits
 * for those: thousands of hosts come to a standstill that way. Returns the hosts whose status is held by others.
 */
async function lockStatuses(tx: Queryable, of: readonly { readonly nodeId: string }[]): Promise<ReadonlySet<string>> {
  const nodeIds = of.map(({ nodeId }) => nodeId);
  const busy = await tx.query<{ nodeId: string }>(sql`
    WITH held AS MATERIALIZED (
      SELECT node_id FROM node_status WHERE node_id = ANY(${nodeIds}::uuid[]) FOR NO KEY UPDATE SKIP LOCKED)
    SELECT s.node_id AS "nodeId" FROM node_status s
    WHERE s.node_id = ANY(${nodeIds}::uuid[]) AND NOT EXISTS (SELECT FROM held h WHERE h.node_id = s.node_id)`);
  return new Set(busy.map(({ nodeId }) => nodeId));
}

async function judgeHeartbeats(
  tx: Queryable,
  heartbeats: readonly ReceivedHeartbeat[],
): Promise<{ accepted: readonly ReceivedHeartbeat[]; revoked: readonly ReceivedHeartbeat[] }> {
  if (heartbeats.length === 0) return { accepted: [], revoked: [] };
  const nodeIds = heartbeats.map((h) => h.nodeId);
  const serials = heartbeats.map((h) => h.heartbeat.certificateSerial.toLowerCase());
  const rows = await tx.query<{ index: number; revoked: boolean }>(sql`
    SELECT v.index::integer - 1 AS index, c.revoked_at IS NOT NULL AS revoked
    FROM unnest(${nodeIds}::uuid[], ${serials}::text[]) WITH ORDINALITY AS v (node_id, serial, index)
    JOIN nodes n ON n.id = v.node_id AND n.removed_at IS NULL
    JOIN node_certificates c ON c.serial = v.serial AND c.node_id = v.node_id`);
  const select = (revoked: boolean) =>
    rows.flatMap((row) => (row.revoked === revoked ? (heartbeats[row.index] ?? []) : []));
  return { accepted: select(false), revoked: select(true) };
}

/** Samples carry no certificate, but the heartbeat of the same agent names its spool. */
function spoolsOf(heartbeats: readonly ReceivedHeartbeat[]): SpoolKey[] {
  return heartbeats.flatMap(({ nodeId, heartbeat: { spoolId } }) => (spoolId === "" ? [] : [{ nodeId, spoolId }]));
}

async function writeStatus(tx: Queryable, beats: readonly ReceivedHeartbeat[]): Promise<void> {
  await tx.execute(sql`
    INSERT INTO node_status AS s (node_id, last_heartbeat_at, presence_online, agent_version, clock_skew_ms, cpu_busy_basis_points,
      load1_centi, memory_available_mb, spool_depth, spool_oldest_at, running_containers)
    SELECT node_id, to_timestamp(received_ms / 1000), true, agent_version, skew_ms, cpu, load1, memory, depth,
      to_timestamp(nullif(oldest_ms, 0) / 1000), running
    FROM unnest(${beats.map((b) => b.nodeId)}::uuid[], ${beats.map((b) => b.receivedAtMs)}::float8[], ${beats.map((b) => b.heartbeat.agentVersion)}::text[],
      ${beats.map(clockSkewMs)}::bigint[], ${beats.map((b) => b.heartbeat.cpuBusyBasisPoints)}::integer[], ${beats.map((b) => b.heartbeat.load1Centi)}::integer[],
      ${beats.map((b) => b.heartbeat.memoryAvailableMb)}::integer[], ${beats.map((b) => b.heartbeat.spoolDepth)}::bigint[],
      ${beats.map((b) => Number(b.heartbeat.spoolOldestMs))}::float8[], ${beats.map((b) => b.heartbeat.runningContainers)}::integer[])
      AS v (node_id, received_ms, agent_version, skew_ms, cpu, load1, memory, depth, oldest_ms, running)
    ORDER BY node_id
    ON CONFLICT (node_id) DO UPDATE SET last_heartbeat_at = excluded.last_heartbeat_at, presence_online = true,
      agent_version = coalesce(nullif(excluded.agent_version, ''), s.agent_version), clock_skew_ms = excluded.clock_skew_ms,
      cpu_busy_basis_points = excluded.cpu_busy_basis_points, load1_centi = excluded.load1_centi,
      memory_available_mb = excluded.memory_available_mb, spool_depth = excluded.spool_depth,
      spool_oldest_at = excluded.spool_oldest_at, running_containers = excluded.running_containers
    WHERE s.last_heartbeat_at IS NULL OR s.last_heartbeat_at <= excluded.last_heartbeat_at`);
}

async function writeNodeSamples(tx: Queryable, beats: readonly ReceivedHeartbeat[]): Promise<void> {
  await tx.execute(sql`
    INSERT INTO node_samples (node_id, at, cpu_busy_basis_points, load1_centi, memory_total_mb, memory_available_mb)
    SELECT node_id, date_trunc('minute', to_timestamp(received_ms / 1000)), cpu, load1, total, available
    FROM unnest(${beats.map((b) => b.nodeId)}::uuid[], ${beats.map((b) => b.receivedAtMs)}::float8[], ${beats.map((b) => b.heartbeat.cpuBusyBasisPoints)}::integer[],
      ${beats.map((b) => b.heartbeat.load1Centi)}::integer[], ${beats.map((b) => b.heartbeat.memoryTotalMb)}::integer[],
      ${beats.map((b) => b.heartbeat.memoryAvailableMb)}::integer[]) AS v (node_id, received_ms, cpu, load1, total, available)
    ON CONFLICT (node_id, at) DO NOTHING`);
}

/** What the heartbeats before showed of the clocks of those hosts that seem to be slow. */
async function readSkews(tx: Queryable, beats: readonly ReceivedHeartbeat[]): Promise<ReadonlyMap<string, number>> {
  const slow = beats.filter(seemsSlow);
  if (slow.length === 0) return new Map();
  const rows = await tx.query<{ nodeId: string; skewMs: number }>(sql`
    SELECT node_id AS "nodeId", clock_skew_ms::float8 AS "skewMs" FROM node_status
    WHERE node_id = ANY(${slow.map(({ nodeId }) => nodeId)}::uuid[]) AND clock_skew_ms IS NOT NULL`);
  return new Map(rows.map(({ nodeId, skewMs }) => [nodeId, skewMs]));
}

async function writeConditions(
  tx: Queryable,
  beats: readonly ReceivedHeartbeat[],
  skewsBefore: ReadonlyMap<string, number>,
): Promise<void> {
  const wanted = beats.flatMap((beat) =>
    conditionsOf(beat, skewsBefore.get(beat.nodeId)).map((condition) => ({ ...condition, nodeId: beat.nodeId })),
  );
  const changes = await tx.query<ConditionChange>(sql`
    WITH wanted (node_id, kind, message) AS (
      SELECT * FROM unnest(${wanted.map((w) => w.nodeId)}::uuid[], ${wanted.map((w) => w.kind)}::text[], ${wanted.map((w) => w.message)}::text[])),
    cleared AS (
      DELETE FROM node_conditions d WHERE d.node_id = ANY(${beats.map((b) => b.nodeId)}::uuid[]) AND d.kind = ANY(${[...heartbeatConditionKinds]}::text[])
        AND NOT EXISTS (SELECT FROM wanted w WHERE w.node_id = d.node_id AND w.kind = d.kind)
      RETURNING node_id, kind, message),
    known AS (SELECT node_id, kind FROM node_conditions WHERE node_id IN (SELECT node_id FROM wanted)),
    stored AS (
      INSERT INTO node_conditions AS d (node_id, kind, message) SELECT node_id, kind, message FROM wanted ORDER BY 1, 2
      ON CONFLICT (node_id, kind) DO UPDATE SET message = excluded.message WHERE d.message <> excluded.message
      RETURNING node_id, kind, message)
    SELECT node_id AS "nodeId", kind, message, false AS cleared FROM stored s
    WHERE NOT EXISTS (SELECT FROM known k WHERE k.node_id = s.node_id AND k.kind = s.kind)
    UNION ALL SELECT node_id, kind, message, true FROM cleared`);
  await recordConditionEvents(tx, changes);
}

async function writePresences(tx: Queryable, presences: readonly ReceivedPresence[]): Promise<void> {
  await tx.execute(sql`
    UPDATE node_status s SET presence_online = v.online
    FROM unnest(${presences.map((p) => p.nodeId)}::uuid[], ${presences.map((p) => p.online)}::boolean[]) AS v (node_id, online)
    WHERE s.node_id = v.node_id AND s.presence_online IS DISTINCT FROM v.online`);
}
