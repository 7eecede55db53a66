import { isUuid } from "@cloudpods/shared/ids";
import type { Queryable } from "../platform/database.ts";
import { sql } from "../platform/sql.ts";
import type { Stay } from "./judge-sample.ts";

/** What ingest must know of a node to believe its samples. */
export interface NodeHosting {
  readonly state: "known" | "removed" | "unknown";
  /** By pod: when it was placed on the node; stays that ended long ago are looked up singly. */
  readonly stays: ReadonlyMap<string, readonly Stay[]>;
}

/** A pod whose stay on a node is in question. */
export interface StayQuestion {
  readonly nodeId: string;
  readonly podId: string;
}

/** Looks up nodes and the stays of pods on them. */
export interface Hosting {
  /** Nodes as they were at most 20 s ago. */
  load(nodeIds: ReadonlySet<string>): Promise<ReadonlyMap<string, NodeHosting>>;
  /** All stays of single pods, from the database; keys are `node/pod`. Asked before a sample is rejected. */
  lookUp(questions: readonly StayQuestion[]): Promise<ReadonlyMap<string, readonly Stay[]>>;
}

interface Entry {
  readonly hosting: NodeHosting;
  readonly expiresAtMs: number;
}

interface NodeRow {
  readonly id: string;
  readonly removed: boolean;
  readonly pods: string[] | null;
  readonly from_ms: number[] | null;
  readonly to_ms: number[] | null;
}

/**
 * Less than the minute by which a sample may exceed its stay: a stay that ended while it was cached as
 * open is read again before a sample could exceed it.
 */
const ttlMs = 15_000;
const ttlJitterMs = 5_000;

/** Stays change rarely and samples come in thousands: nodes are cached for some seconds. */
export function hostingCache(database: Queryable, clock: () => number): Hosting {
  const entries = new Map<string, Entry>();
  return {
    async load(nodeIds) {
      const nowMs = clock();
      const missing = [...nodeIds].filter((id) => (entries.get(id)?.expiresAtMs ?? 0) <= nowMs);
      if (missing.length > 0) {
        for (const [id, entry] of entries) if (entry.expiresAtMs <= nowMs) entries.delete(id);
        const loaded = await loadNodes(database, missing);
        for (const id of missing) {
          const hosting = loaded.get(id) ?? { state: "unknown", stays: new Map() };
          entries.set(id, { hosting, expiresAtMs: nowMs + ttlMs + Math.random() * ttlJitterMs });
        }
      }
      const found = new Map<string, NodeHosting>();
      for (const id of nodeIds) {
        const hosting = entries.get(id)?.hosting;
        if (hosting !== undefined) found.set(id, hosting);
      }
      return found;
    },
    lookUp: (questions) => lookUpStays(database, questions),
  };
}

async function loadNodes(database: Queryable, nodeIds: readonly string[]): Promise<Map<string, NodeHosting>> {
  const rows = await database.query<NodeRow>(sql`
    SELECT n.id, n.removed_at IS NOT NULL AS removed, p.pods, p.from_ms, p.to_ms
    FROM nodes n LEFT JOIN LATERAL (
      SELECT array_agg(pod_id::text) AS pods,
        array_agg(extract(epoch FROM placed_from)::float8 * 1000) AS from_ms,
        array_agg(coalesce(extract(epoch FROM placed_to)::float8 * 1000, 'infinity'::float8)) AS to_ms
      FROM cloud_pod_placements
      WHERE node_id = n.id AND (placed_to IS NULL OR placed_to > now() - interval '1 day')
    ) p ON true
    WHERE n.id = ANY(${nodeIds}::uuid[])`);
  return new Map(
    rows.map((row) => {
      const stays = new Map<string, Stay[]>();
      row.pods?.forEach((podId, index) => {
        const stay = { fromMs: row.from_ms?.[index] ?? Infinity, toMs: row.to_ms?.[index] ?? Infinity };
        stays.set(podId, [...(stays.get(podId) ?? []), stay]);
      });
      return [row.id, { state: row.removed ? "removed" : "known", stays }];
    }),
  );
}

async function lookUpStays(database: Queryable, questions: readonly StayQuestion[]): Promise<Map<string, Stay[]>> {
  const valid = questions.filter((question) => isUuid(question.podId));
  const found = new Map<string, Stay[]>();
  if (valid.length === 0) return found;
  const rows = await database.query<{ node_id: string; pod_id: string; from_ms: number; to_ms: number }>(sql`
    SELECT p.node_id, p.pod_id, extract(epoch FROM placed_from)::float8 * 1000 AS from_ms,
      coalesce(extract(epoch FROM placed_to)::float8 * 1000, 'infinity'::float8) AS to_ms
    FROM cloud_pod_placements p
    JOIN (SELECT DISTINCT * FROM unnest(${valid.map((q) => q.nodeId)}::uuid[], ${valid.map((q) => q.podId)}::uuid[])) AS q (node_id, pod_id)
      ON p.node_id = q.node_id AND p.pod_id = q.pod_id`);
  for (const row of rows) {
    const key = `${row.node_id}/${row.pod_id}`;
    found.set(key, [...(found.get(key) ?? []), { fromMs: row.from_ms, toMs: row.to_ms }]);
  }
  return found;
}
