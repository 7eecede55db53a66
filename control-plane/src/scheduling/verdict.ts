import type { FilterName } from "./filters.ts";
import type { ScoreName } from "./scores.ts";

/** A node that could take the pod, with the points of each score; the most points win. */
export interface CandidateVerdict {
  readonly nodeId: string;
  readonly node: string;
  readonly storage: string;
  readonly points: number;
  readonly scores: Readonly<Record<ScoreName, number>>;
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
 * Why a pod sits where it sits, or why nowhere; stored as JSON. Of a large fleet it holds the best
 * candidates and a sample of the rejected nodes, and the counts of all.
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
