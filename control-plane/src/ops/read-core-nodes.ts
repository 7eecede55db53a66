import type { NodeState } from "../nodes/node-state.ts";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";

/** Hosts of one role in one state. */
export interface StateCount {
  readonly role: string;
  readonly state: NodeState;
  readonly nodes: number;
}

/** A host and how it is. */
export interface CoreNode {
  readonly id: string;
  readonly name: string;
  readonly role: string;
  readonly region: string;
  readonly state: NodeState;
  readonly stateSince: Date;
  readonly schedulable: boolean;
  readonly lastHeartbeatAt: Date | null;
  readonly cpuBusyBasisPoints: number | null;
  readonly memoryAvailableMb: number | null;
  readonly agentVersion: string | null;
  readonly conditions: readonly string[];
}

/** How many hosts have a condition. */
export interface ConditionCount {
  readonly kind: string;
  readonly nodes: number;
  readonly oldestAt: Date;
}

const shownOfRole = 20;

/** How many hosts there are of each role, by state. */
export async function countNodes(db: Queryable): Promise<StateCount[]> {
  return await db.query<StateCount>(sql`
    SELECT n.role, s.state, count(*)::integer AS nodes
    FROM nodes n JOIN node_status s ON s.node_id = n.id WHERE n.removed_at IS NULL GROUP BY n.role, s.state ORDER BY n.role, s.state`);
}

/**
 * The hosts of each role that are worst off, the worst first: silence before conditions before health. Role by role,
 * so that of a large fleet only the first few are sorted.
 */
export async function readWorstNodes(db: Queryable): Promise<CoreNode[]> {
  return await db.query<CoreNode>(sql`
    WITH complaints AS MATERIALIZED (SELECT node_id, array_agg(kind ORDER BY kind) AS kinds FROM node_conditions GROUP BY node_id)
    SELECT worst.* FROM (SELECT DISTINCT role FROM nodes WHERE removed_at IS NULL) AS roles CROSS JOIN LATERAL (
      SELECT n.id, n.name, n.role, n.region, s.state, s.state_since AS "stateSince", n.schedulable, s.last_heartbeat_at AS "lastHeartbeatAt",
        s.cpu_busy_basis_points AS "cpuBusyBasisPoints", s.memory_available_mb AS "memoryAvailableMb", s.agent_version AS "agentVersion",
        coalesce(k.kinds, '{}') AS conditions
      FROM nodes n JOIN node_status s ON s.node_id = n.id LEFT JOIN complaints k ON k.node_id = n.id
      WHERE n.role = roles.role AND n.removed_at IS NULL
      ORDER BY CASE s.state WHEN 'lost' THEN 0 WHEN 'offline' THEN 1 WHEN 'degraded' THEN 2 WHEN 'enrolled' THEN 3 ELSE 4 END,
        k.kinds IS NULL, n.name COLLATE "C" LIMIT ${shownOfRole}) AS worst`);
}

/** How many hosts have which condition, the most frequent first. */
export async function countConditions(db: Queryable): Promise<ConditionCount[]> {
  return await db.query<ConditionCount>(sql`
    SELECT c.kind, count(*)::integer AS nodes, min(c.since) AS "oldestAt"
    FROM node_conditions c JOIN nodes n ON n.id = c.node_id WHERE n.removed_at IS NULL GROUP BY c.kind ORDER BY nodes DESC, c.kind`);
}
