import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { Database, Transaction } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { clearQuietDuplicates, deriveConditions } from "./node-conditions.ts";
import { appendNodeEvents } from "./node-events.ts";
import {
  absenceLimits,
  lastSeenMs,
  nodeState,
  vanishedTogether,
  type AbsenceLimits,
  type NodeSigns,
  type NodeState,
  type WatchClock,
} from "./node-state.ts";

/** What the watch needs. */
export interface NodeWatchOptions {
  readonly db: Database;
  readonly log: Logger;
  readonly heartbeatIntervalMs: number;
  /** Version of agents that this release expects. */
  readonly agentVersion: string;
  /** The one loud alarm: so many hosts vanished together that the fault is presumed ours. Called once per incident. */
  readonly onMassVanishing: (nodeNames: readonly string[]) => void;
  readonly everyMs?: number;
}

/** A running watch. */
export interface NodeWatch {
  stop(): Promise<void>;
}

/** Of advisory locks: one replica watches at a time. */
const watchLock = 0x6361_0002;
/** After a pause of this length what was silent is not held against the hosts. */
const breakMs = 10_000;

/** Begins to look at all hosts once a second, on whichever replica comes first. */
export function startNodeWatch(options: NodeWatchOptions): NodeWatch {
  const stopping = new AbortController();
  let lastLookMs = Number.NEGATIVE_INFINITY;
  let watchedSinceMs = Date.now();
  const loop = (async () => {
    while (!stopping.signal.aborted) {
      try {
        const nowMs = Date.now();
        if (nowMs - lastLookMs > breakMs) watchedSinceMs = nowMs;
        await watchNodesOnce(options, { nowMs, watchedSinceMs });
        lastLookMs = Date.now();
      } catch (error) {
        options.log.warn({ err: error }, "the hosts could not be looked at");
      }
      // Rejects when the watch is stopped, which the loop asks next.
      await sleep(options.everyMs ?? 1_000, undefined, { signal: stopping.signal }).catch(() => {});
    }
  })();
  return {
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}

interface StatusRow {
  readonly nodeId: string;
  readonly name: string;
  readonly role: string;
  readonly state: NodeState;
  readonly sessionSeenAt: Date | null;
  readonly lastHeartbeatAt: Date | null;
  readonly present: boolean | null;
  readonly braked: boolean;
}

/**
 * One look: states and the brake in one transaction, conditions in the next, because everything about a host whose state
 * changes waits for the first. Nothing happens while another replica looks.
 */
export async function watchNodesOnce(options: NodeWatchOptions, clock: Omit<WatchClock, "braked">): Promise<void> {
  const alarm = await options.db.transaction(async (tx) => {
    if (!(await mayLook(tx))) return [];
    const rows = await tx.query<StatusRow>(sql`
      SELECT s.node_id AS "nodeId", n.name, n.role, s.state, s.session_seen_at AS "sessionSeenAt", s.last_heartbeat_at AS "lastHeartbeatAt",
        s.presence_online AS present, EXISTS (SELECT FROM node_conditions c WHERE c.node_id = n.id AND c.kind = 'MassVanishing') AS braked
      FROM node_status s JOIN nodes n ON n.id = s.node_id WHERE n.removed_at IS NULL`);
    const limits = absenceLimits(options.heartbeatIntervalMs);
    const vanished = findVanished(rows, limits, clock);
    await storeStates(tx, rows, (row) =>
      nodeState(row.state, signsOf(row), limits, { ...clock, braked: vanished.has(row.nodeId) }),
    );
    return await storeBrake(tx, rows, vanished);
  });
  await options.db.transaction(async (tx) => {
    if (!(await mayLook(tx))) return;
    await deriveConditions(tx, options.agentVersion);
    await clearQuietDuplicates(tx);
  });
  if (alarm.length === 0) return;
  options.log.fatal(
    { nodes: alarm },
    "more than a third of the fleet vanished within two minutes: presumed our own fault, nothing is done about it",
  );
  options.onMassVanishing(alarm);
}

async function mayLook(tx: Transaction): Promise<boolean> {
  const [lock] = await tx.query<{ held: boolean }>(sql`SELECT pg_try_advisory_xact_lock(${watchLock}) AS held`);
  return lock?.held === true;
}

function signsOf(row: StatusRow): NodeSigns {
  return {
    sessionSeenMs: row.sessionSeenAt?.getTime(),
    heartbeatMs: row.lastHeartbeatAt?.getTime(),
    present: row.present ?? true,
    holdsSession: row.role === "hypervisor",
  };
}

/** Hosts whose silence began together with that of many others. */
function findVanished(
  rows: readonly StatusRow[],
  limits: AbsenceLimits,
  clock: Omit<WatchClock, "braked">,
): ReadonlySet<string> {
  const fleet = rows.flatMap((row) => {
    const seenMs = lastSeenMs(signsOf(row));
    return seenMs === undefined || row.state === "lost" ? [] : [{ row, seenMs }];
  });
  const silent = fleet.filter(
    ({ row }) => nodeState(row.state, signsOf(row), limits, { ...clock, braked: true }) === "offline",
  );
  const together = vanishedTogether(
    silent.map(({ seenMs }) => seenMs),
    fleet.length,
  );
  return new Set([...together].flatMap((index) => silent[index]?.row.nodeId ?? []));
}

async function storeStates(
  tx: Transaction,
  rows: readonly StatusRow[],
  decide: (row: StatusRow) => NodeState,
): Promise<void> {
  const changes = rows.flatMap((row) => {
    const to = decide(row);
    return to === row.state ? [] : [{ node_id: row.nodeId, from: row.state, to }];
  });
  if (changes.length === 0) return;
  // A host on which others are at work has its turn at the next look: waiting for it would keep all others waiting.
  const stored = await tx.query<{ nodeId: string; from: string; to: string }>(sql`
    WITH changes AS (
      SELECT s.node_id, x.from, x.to FROM node_status s
      JOIN jsonb_to_recordset(${JSON.stringify(changes)}::jsonb) AS x(node_id uuid, "from" text, "to" text) ON x.node_id = s.node_id AND x.from = s.state
      FOR NO KEY UPDATE OF s SKIP LOCKED)
    UPDATE node_status s SET state = c.to, state_since = now() FROM changes c
    WHERE s.node_id = c.node_id RETURNING s.node_id AS "nodeId", c.from, c.to`);
  await appendNodeEvents(
    tx,
    stored.map(({ nodeId, from, to }) => ({
      nodeId,
      kind: "STATE_CHANGED",
      message: `${from} → ${to}`,
      detail: { from, to },
    })),
  );
}

/** Marks the hosts of an incident; returns their names when the incident is a new one. */
async function storeBrake(
  tx: Transaction,
  rows: readonly StatusRow[],
  vanished: ReadonlySet<string>,
): Promise<string[]> {
  const over = rows.filter((row) => row.braked && !vanished.has(row.nodeId)).map((row) => row.nodeId);
  if (over.length > 0)
    await tx.execute(sql`DELETE FROM node_conditions WHERE kind = 'MassVanishing' AND node_id = ANY(${over}::uuid[])`);
  const begun = rows.filter((row) => !row.braked && vanished.has(row.nodeId));
  if (begun.length === 0) return [];
  const message =
    "Vanished together with more than a third of the fleet: presumed a fault of the control plane, nothing is done about it.";
  await tx.execute(sql`
    INSERT INTO node_conditions (node_id, kind, message) SELECT id, 'MassVanishing', ${message} FROM unnest(${begun.map((row) => row.nodeId)}::uuid[]) AS id`);
  await appendNodeEvents(
    tx,
    begun.map((row) => ({
      nodeId: row.nodeId,
      kind: "CONDITION_RAISED",
      message: `MassVanishing: ${message}`,
      detail: { condition: "MassVanishing" },
    })),
  );
  return rows.some((row) => row.braked) ? [] : begun.map((row) => row.name);
}
