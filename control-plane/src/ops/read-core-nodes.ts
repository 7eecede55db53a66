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

/** The hosts of each role that are worst off, the worst first: silence before conditions before health. */
export async function readWorstNodes(db: Queryable): Promise<CoreNode[]> {
  return await db.query<CoreNode>(sql`
    WITH complaints AS (SELECT node_id, array_agg(kind ORDER BY kind) AS kinds FROM node_conditions GROUP BY node_id),
    ranked AS (
      SELECT n.id, n.name, n.role, row_number() OVER (PARTITION BY n.role ORDER BY
          array_position(ARRAY['lost', 'offline', 'degraded', 'enrolled', 'online'], s.state), k.kinds IS NULL, n.name COLLATE "C") AS place, k.kinds
      FROM nodes n JOIN node_status s ON s.node_id = n.id LEFT JOIN complaints k ON k.node_id = n.id WHERE n.removed_at IS NULL)
    SELECT r.id, r.name, r.role, n.region, s.state, s.state_since AS "stateSince", n.schedulable, s.last_heartbeat_at AS "lastHeartbeatAt",
      s.cpu_busy_basis_points AS "cpuBusyBasisPoints", s.memory_available_mb AS "memoryAvailableMb", s.agent_version AS "agentVersion",
      coalesce(r.kinds, '{}') AS conditions
    FROM ranked r JOIN nodes n ON n.id = r.id JOIN node_status s ON s.node_id = r.id WHERE r.place <= ${shownOfRole} ORDER BY r.role, r.place`);
}

/** How many hosts have which condition, the most frequent first. */
export async function countConditions(db: Queryable): Promise<ConditionCount[]> {
  return await db.query<ConditionCount>(sql`
    SELECT c.kind, count(*)::integer AS nodes, min(c.since) AS "oldestAt"
    FROM node_conditions c JOIN nodes n ON n.id = c.node_id WHERE n.removed_at IS NULL GROUP BY c.kind ORDER BY nodes DESC, c.kind`);
}
