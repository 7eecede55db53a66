/**
 * Full-jitter back-off: a uniformly random wait between 0 and `baseMs · 2^attempt`, capped, so that
 * a fleet that lost its control plane does not return in step.
 *
 * @param attempt failures so far, 0 for the first wait
 * @param random a number in [0, 1)
 */
export function fullJitterMs(attempt: number, random: number, limits: BackoffLimits): number {
  // 2^30 ms is beyond every cap in use and keeps the power finite.
  const ceiling = Math.min(limits.capMs, limits.baseMs * 2 ** Math.min(attempt, 30));
  return Math.floor(random * ceiling);
}

/** Bounds of a back-off, in ms. */
export interface BackoffLimits {
  readonly baseMs: number;
  readonly capMs: number;
}
