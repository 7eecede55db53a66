import type { MoveStrategy } from "./move.ts";

/** A move that is over, as far as it tells of the next. */
export interface PastMove {
  readonly strategy: MoveStrategy;
  readonly diskGb: number;
  readonly downtimeMs: number;
  /** From when the pod was first touched to the end of the task. */
  readonly durationMs: number;
}

/** What a move will cost; null: nothing like it was ever done here. */
export interface ExpectedCost {
  readonly downtimeMs: number | null;
  readonly durationMs: number | null;
}

/**
 * Expects what the middle one of the moves of the same kind has shown. By archive the time is in proportion to the disk,
 * because all of it is written and read; a migration in a cluster is a stop and a start.
 */
export function expectedCost(
  history: readonly PastMove[],
  { strategy, diskGb, runs }: { readonly strategy: MoveStrategy; readonly diskGb: number; readonly runs: boolean },
): ExpectedCost {
  const alike = history.filter((past) => past.strategy === strategy);
  const factor = (past: PastMove): number =>
    strategy === "cluster-migrate" ? 1 : Math.max(1, diskGb) / Math.max(1, past.diskGb);
  const durationMs = median(alike.map((past) => past.durationMs * factor(past)));
  if (!runs) return { downtimeMs: 0, durationMs };
  return { downtimeMs: median(alike.map((past) => past.downtimeMs * factor(past))), durationMs };
}

/** How long moves take side by side, each begun when one before it has ended; null as soon as one is not known. */
export function totalDurationMs(durations: readonly (number | null)[], maxParallel: number): number | null {
  const lanes = Array.from({ length: Math.max(1, maxParallel) }, () => 0);
  for (const durationMs of durations) {
    if (durationMs === null) return null;
    const first = lanes.indexOf(Math.min(...lanes));
    lanes[first] = (lanes[first] ?? 0) + durationMs;
  }
  return Math.max(...lanes);
}

function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor((sorted.length - 1) / 2);
  const [low = 0, high = low] = [sorted[middle], sorted[Math.ceil((sorted.length - 1) / 2)]];
  return Math.round((low + high) / 2);
}
