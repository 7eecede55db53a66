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

/** Every node of a snapshot judged for one request of one tenant. */
export interface Ranking {
  readonly snapshot: FleetSnapshot;
  readonly fitting: number;
  /** The nodes that can take the pod, best first; worked out as far as it is read. */
  readonly candidates: Iterable<Candidate>;
  readonly rejections: readonly Rejection[];
  readonly reasons: readonly ReasonGroup[];
}

/** Every node judged for one request, before the tenant is known. */
export interface TenantlessRanking extends Ranking {
  readonly candidates: readonly Candidate[];
  readonly candidateByNode: ReadonlyMap<string, Candidate>;
}

/** Judges every node for one request of a tenant. Equal input gives equal order: ties go to the lower node id. */
export function rankNodes(request: PlacementRequest, snapshot: FleetSnapshot, tenant: TenantFootprint): Ranking {
  return regardTenant(rankForAnyone(request, snapshot), tenant);
}

/**
 * The part of `rankNodes` that is the same for every tenant. It looks at all nodes, so callers with many
 * requests of few shapes keep it for the life of a snapshot.
 */
export function rankForAnyone(request: PlacementRequest, snapshot: FleetSnapshot): TenantlessRanking {
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
  return {
    snapshot,
    fitting: candidates.length,
    candidates,
    candidateByNode: new Map(candidates.map((candidate) => [candidate.node.id, candidate])),
    rejections,
    reasons: groupReasons(rejections),
  };
}

/**
 * Takes into account where the tenant has pods. The work is in proportion to those nodes and to the
 * candidates that are read, not to the fleet: an order reads a few.
 */
export function regardTenant(ranking: TenantlessRanking, tenant: TenantFootprint): Ranking {
  const { podsByNode, conflictingNodes } = tenant;
  const conflicts = [...conflictingNodes]
    .map((nodeId) => ranking.candidateByNode.get(nodeId))
    .filter((candidate) => candidate !== undefined)
    .map(({ node }) => ({ node, filter: antiAffinity.name, refusal: antiAffinity.refusal }));
  const neighbours: Candidate[] = [];
  for (const [nodeId, pods] of podsByNode) {
    const candidate = ranking.candidateByNode.get(nodeId);
    if (candidate !== undefined && !conflictingNodes.has(nodeId)) neighbours.push(withNeighbours(candidate, pods));
  }
  neighbours.sort(bestFirst);
  const isTouched = (nodeId: string): boolean => podsByNode.has(nodeId) || conflictingNodes.has(nodeId);
  return {
    snapshot: ranking.snapshot,
    fitting: ranking.fitting - conflicts.length,
    candidates: { [Symbol.iterator]: () => merge(ranking.candidates, isTouched, neighbours) },
    rejections: conflicts.length === 0 ? ranking.rejections : [...ranking.rejections, ...conflicts],
    reasons: conflicts.length === 0 ? ranking.reasons : [...ranking.reasons, ...groupReasons(conflicts)],
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

/** The candidates that are not touched, with the neighbours at their new places. */
function* merge(
  candidates: readonly Candidate[],
  isTouched: (nodeId: string) => boolean,
  neighbours: readonly Candidate[],
): Generator<Candidate, undefined> {
  let next = 0;
  for (const candidate of candidates) {
    if (isTouched(candidate.node.id)) continue;
    for (
      let other = neighbours[next];
      other !== undefined && bestFirst(other, candidate) < 0;
      other = neighbours[++next]
    ) {
      yield other;
    }
    yield candidate;
  }
  yield* neighbours.slice(next);
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
