import type { FilterName, Refusal } from "./filters.ts";
import type { Candidate, Ranking, ReasonGroup, Rejection } from "./rank-nodes.ts";
import type { Scores } from "./scores.ts";

/** A node that could take the pod, with the points of each score; the most points win. */
export interface CandidateVerdict {
  readonly nodeId: string;
  readonly node: string;
  readonly storage: string;
  readonly points: number;
  readonly scores: Scores;
}

/** A node that could not, and the first filter that said so. */
export interface RejectedVerdict {
  readonly nodeId: string;
  readonly node: string;
  readonly filter: FilterName;
  /** In words, e.g. `short of memory by 512 MB`. */
  readonly reason: string;
}

/** How many nodes a filter took out. */
export interface ReasonCount {
  readonly filter: FilterName;
  readonly nodes: number;
}

/**
 * Why a pod sits where it sits, or why nowhere; kept as JSON. Of a large fleet it names the best
 * candidates and some of the refused nodes, and counts all.
 */
export interface PlacementVerdict {
  /** E.g. `0 of 3 nodes: 1 cordoned, 2 short of memory by 512 MB`. */
  readonly summary: string;
  /** When the fleet was looked at, RFC 3339. */
  readonly at: string;
  readonly chosen: CandidateVerdict | null;
  readonly nodes: number;
  readonly fitting: number;
  readonly reasons: readonly ReasonCount[];
  readonly candidates: readonly CandidateVerdict[];
  readonly rejected: readonly RejectedVerdict[];
}

/** How many nodes a verdict names. */
export interface VerdictLimits {
  readonly candidatesMax: number;
  readonly rejectedMax: number;
}

/** For verdicts that are kept with every pod. */
export const keptVerdict: VerdictLimits = { candidatesMax: 5, rejectedMax: 20 };

/** The verdict of a ranking. */
export function verdictOf(ranking: Ranking, chosen: Candidate | undefined, limits: VerdictLimits): PlacementVerdict {
  return {
    summary: summaryOf(ranking),
    at: ranking.snapshot.readAt.toISOString(),
    chosen: chosen === undefined ? null : candidateVerdict(chosen),
    nodes: ranking.snapshot.nodes.length,
    fitting: ranking.fitting,
    reasons: countByFilter(ranking.reasons),
    candidates: first(ranking.candidates, limits.candidatesMax).map(candidateVerdict),
    rejected: tellingFirst(ranking.rejections).slice(0, limits.rejectedMax).map(rejectedVerdict),
  };
}

/** Of a move there may be few hosts that come into question among many that do not: why those few do not is told first. */
function tellingFirst(rejections: readonly Rejection[]): readonly Rejection[] {
  if (rejections.every(({ filter }) => filter !== "target")) return rejections;
  return [...rejections].sort((a, b) => Number(a.filter === "target") - Number(b.filter === "target"));
}

/** The ranking in one line: how many nodes fit, and how many do not for which reason. */
export function summaryOf(ranking: Ranking): string {
  const total = ranking.snapshot.nodes.length;
  const count = `${ranking.fitting} of ${total} ${total === 1 ? "node" : "nodes"}`;
  const reasons = ranking.reasons.map((group) => `${group.nodes} ${reasonText(group)}`);
  return reasons.length === 0 ? count : `${count}: ${reasons.join(", ")}`;
}

function first<T>(values: Iterable<T>, count: number): T[] {
  return Iterator.from(values).take(count).toArray();
}

function reasonText({ reason, shortBy }: ReasonGroup): string {
  if (shortBy === undefined) return reason;
  const { least, most, unit } = shortBy;
  return `${reason} by ${least === most ? "" : "at least "}${amount(least, unit)}`;
}

function amount(value: number, unit: string): string {
  return unit === "" ? String(value) : `${value} ${unit}`;
}

function candidateVerdict({ node, storage, points, scores }: Candidate): CandidateVerdict {
  return { nodeId: node.id, node: node.name, storage: storage.name, points, scores };
}

function rejectedVerdict({ node, filter, refusal }: Rejection): RejectedVerdict {
  return { nodeId: node.id, node: node.name, filter, reason: refusalText(refusal) };
}

/** A refusal in words. */
export function refusalText({ reason, shortBy, detail }: Refusal): string {
  if (shortBy !== undefined) return `${reason} by ${amount(shortBy.amount, shortBy.unit)}`;
  return detail === undefined ? reason : `${reason}: ${detail}`;
}

function countByFilter(reasons: readonly ReasonGroup[]): ReasonCount[] {
  const counts = new Map<FilterName, number>();
  for (const { filter, nodes } of reasons) counts.set(filter, (counts.get(filter) ?? 0) + nodes);
  return [...counts].map(([filter, nodes]) => ({ filter, nodes }));
}
