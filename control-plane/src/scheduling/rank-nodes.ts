import { antiAffinity, firstRefusal, type FilterName, type Refusal } from "./filters.ts";
import { storageFor, type FleetSnapshot, type NodeSnapshot, type StorageSnapshot } from "./fleet-snapshot.ts";
import type { PlacementRequest, TenantFootprint } from "./placement-request.ts";
import { pointsOf, scoresOf, tenantSpread, type Scores } from "./scores.ts";

/** A node that can take the pod. */
export interface Candidate {
  readonly node: NodeSnapshot;
  readonly storage: StorageSnapshot;
  readonly scores: Scores;
  readonly points: number;
}

/** A node that cannot, and the first filter that said so. */
export interface Rejection {
  readonly node: NodeSnapshot;
  readonly filter: FilterName;
  readonly refusal: Refusal;
}

/** How many nodes were refused for the same reason, and between which bounds something was missing. */
export interface ReasonGroup {
  readonly filter: FilterName;
  readonly reason: string;
  readonly nodes: number;
  readonly shortBy: { readonly least: number; readonly most: number; readonly unit: string } | undefined;
}

/** Every node of a snapshot judged for one request. */
export interface Ranking {
  readonly snapshot: FleetSnapshot;
  /** Best first. */
  readonly candidates: readonly Candidate[];
  readonly rejections: readonly Rejection[];
  readonly reasons: readonly ReasonGroup[];
}

/** Judges every node for one request of a tenant. Equal input gives equal order: ties go to the lower node id. */
export function rankNodes(request: PlacementRequest, snapshot: FleetSnapshot, tenant: TenantFootprint): Ranking {
  return regardTenant(rankForAnyone(request, snapshot), tenant);
}

/**
 * The part of `rankNodes` that is the same for every tenant. It looks at all nodes, so callers with many
 * requests of few shapes keep it for the life of a snapshot.
 */
export function rankForAnyone(request: PlacementRequest, snapshot: FleetSnapshot): Ranking {
  const candidates: Candidate[] = [];
  const rejections: Rejection[] = [];
  for (const node of snapshot.nodes) {
    const refused = firstRefusal(node, request);
    const storage = storageFor(node, request.storage);
    if (refused !== undefined) rejections.push({ node, ...refused });
    else if (storage !== undefined) {
      const scores = scoresOf(node, storage, request);
      candidates.push({ node, storage, scores, points: pointsOf(scores) });
    }
  }
  candidates.sort(bestFirst);
  return { snapshot, candidates, rejections, reasons: groupReasons(rejections) };
}

/** Takes into account where the tenant has pods. It touches only those nodes. */
export function regardTenant(ranking: Ranking, tenant: TenantFootprint): Ranking {
  const { podsByNode, conflictingNodes } = tenant;
  if (podsByNode.size === 0 && conflictingNodes.size === 0) return ranking;
  const untouched: Candidate[] = [];
  const touched: Candidate[] = [];
  const conflicts: Rejection[] = [];
  for (const candidate of ranking.candidates) {
    const { node } = candidate;
    const pods = podsByNode.get(node.id);
    if (conflictingNodes.has(node.id))
      conflicts.push({ node, filter: antiAffinity.name, refusal: antiAffinity.refusal });
    else if (pods === undefined) untouched.push(candidate);
    else touched.push(withNeighbours(candidate, pods));
  }
  const rejections = [...ranking.rejections, ...conflicts];
  return {
    snapshot: ranking.snapshot,
    candidates: merge(untouched, touched.toSorted(bestFirst)),
    rejections,
    reasons: [...ranking.reasons, ...groupReasons(conflicts)],
  };
}

function withNeighbours(candidate: Candidate, pods: number): Candidate {
  const scores = { ...candidate.scores, [tenantSpread.name]: tenantSpread.points(pods) };
  return { ...candidate, scores, points: pointsOf(scores) };
}

function bestFirst(a: Candidate, b: Candidate): number {
  if (a.points !== b.points) return b.points - a.points;
  return a.node.id < b.node.id ? -1 : 1;
}

/** Two sorted lists as one. */
function merge(left: readonly Candidate[], right: readonly Candidate[]): Candidate[] {
  const merged: Candidate[] = [];
  let next = 0;
  for (const candidate of left) {
    for (let other = right[next]; other !== undefined && bestFirst(other, candidate) < 0; other = right[++next])
      merged.push(other);
    merged.push(candidate);
  }
  return [...merged, ...right.slice(next)];
}

function groupReasons(rejections: readonly Rejection[]): ReasonGroup[] {
  const groups = new Map<
    string,
    { filter: FilterName; reason: string; nodes: number; shortBy: ReasonGroup["shortBy"] }
  >();
  for (const { filter, refusal } of rejections) {
    const key = `${filter} ${refusal.reason}`;
    const group = groups.get(key) ?? { filter, reason: refusal.reason, nodes: 0, shortBy: undefined };
    const { shortBy } = refusal;
    group.nodes += 1;
    if (shortBy !== undefined) {
      group.shortBy = {
        least: Math.min(group.shortBy?.least ?? Infinity, shortBy.amount),
        most: Math.max(group.shortBy?.most ?? 0, shortBy.amount),
        unit: shortBy.unit,
      };
    }
    groups.set(key, group);
  }
  return [...groups.values()];
}
