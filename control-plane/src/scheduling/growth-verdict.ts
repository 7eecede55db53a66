import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import { short, type FilterName, type Refusal } from "./filters.ts";
import type { PlacementRequest } from "./placement-request.ts";
import { refusalText, type PlacementVerdict } from "./verdict.ts";

/** What a pod occupies, or by how much that changes. */
export interface Footprint {
  readonly cores: number;
  readonly memoryMb: number;
  readonly diskGb: number;
}

/** A change of a pod's size where the pod is, and whether there is room for it. */
export interface Growth {
  /** The size that the pod would have. */
  readonly request: PlacementRequest;
  /** About the pod's own node only: its `fitting` is 1 or 0. */
  readonly verdict: PlacementVerdict;
}

interface Place {
  readonly nodeId: string;
  readonly node: string;
  readonly region: string;
  readonly claimed: Footprint;
  readonly free: Footprint;
}

/**
 * Whether a pod can grow by `delta` on its own node and storage. `unmet`: the part of it that is still to be
 * found room for, where the caller's transaction has taken the rest. Works under both logins.
 */
export async function judgeGrowth(
  tx: Queryable,
  podId: string,
  delta: Footprint,
  unmet: Footprint = delta,
): Promise<Growth> {
  const [place] = await tx.query<Place>(sql`
    SELECT n.id AS "nodeId", n.name AS node, n.region,
      json_build_object('cores', k.cpu, 'memoryMb', k.memory_mb, 'diskGb', k.disk_gb) AS claimed,
      json_build_object('cores', c.cpu_allocatable - c.cpu_allocated, 'memoryMb', c.memory_allocatable_mb - c.memory_allocated_mb,
        'diskGb', s.allocatable_gb - s.allocated_gb) AS free
    FROM node_claims k JOIN cloud_pods p ON p.id = k.pod_id AND p.generation = k.generation JOIN nodes n ON n.id = k.node_id
      JOIN node_capacity c ON c.node_id = k.node_id JOIN storages s ON s.id = k.storage_id
    WHERE k.pod_id = ${podId}`);
  if (place === undefined) throw new Error(`pod ${podId} occupies no node`);
  const { claimed, region } = place;
  return {
    request: {
      cores: claimed.cores + delta.cores,
      memoryMb: claimed.memoryMb + delta.memoryMb,
      diskGb: claimed.diskGb + delta.diskGb,
      region,
    },
    verdict: verdictOn(place, unmet),
  };
}

function verdictOn({ nodeId, node, free }: Place, unmet: Footprint): PlacementVerdict {
  const rejected = shortages(free, unmet).map(([filter, refusal]) => ({
    nodeId,
    node,
    filter,
    reason: refusalText(refusal),
  }));
  const fitting = rejected.length === 0 ? 1 : 0;
  const why = rejected.map(({ reason }) => reason).join(", ");
  return {
    summary: fitting === 1 ? "1 of 1 node" : `0 of 1 node: ${why}`,
    at: new Date().toISOString(),
    chosen: null,
    nodes: 1,
    fitting,
    reasons: rejected.map(({ filter }) => ({ filter, nodes: 1 })),
    candidates: [],
    rejected,
  };
}

/** Less of something is always possible, even on a node that shrank below what is promised of it. */
function shortages(free: Footprint, { cores, memoryMb, diskGb }: Footprint): [FilterName, Refusal][] {
  const all: [FilterName, Refusal | undefined][] = [
    ["cpu", cores <= 0 ? undefined : short("CPU cores", "", cores, free.cores)],
    ["memory", memoryMb <= 0 ? undefined : short("memory", "MB", memoryMb, free.memoryMb)],
    ["disk", diskGb <= 0 ? undefined : short("disk", "GB", diskGb, free.diskGb)],
  ];
  return all.flatMap(([filter, refusal]) => (refusal === undefined ? [] : [[filter, refusal]]));
}
