/**
 * ```
 * enrolled → online ⇄ degraded ⇄ offline → lost      (any) → removed
 * ```
 * `degraded`: one of the two channels (session, heartbeats) is missing. `offline`: both. `lost`: offline
 * for an hour; what is billed by existence pauses. `removed` is final and decided by people.
 */
export const nodeStates = ["enrolled", "online", "degraded", "offline", "lost", "removed"] as const;
export type NodeState = (typeof nodeStates)[number];

/** When a host was last heard of; ms since 1970 UTC, undefined = never. */
export interface NodeSigns {
  readonly sessionSeenMs: number | undefined;
  readonly heartbeatMs: number | undefined;
  /** False: the host's last will was delivered. */
  readonly present: boolean;
  /** Only hypervisors hold a session; other servers send heartbeats alone. */
  readonly holdsSession: boolean;
}

/** How long a sign may be absent. */
export interface AbsenceLimits {
  /** A session between two of its marks, or between two connections. */
  readonly sessionMs: number;
  /** Heartbeats, several of them. */
  readonly heartbeatMs: number;
  /** Both, until a host counts as offline. */
  readonly offlineMs: number;
  /** Offline, until a host counts as lost. */
  readonly lostMs: number;
  /** Agents wait up to this long between two attempts: so long after a break of ours they may still be on their way back. */
  readonly returnMs: number;
}

/** Limits for heartbeats of the given interval: three may be missed. */
export function absenceLimits(heartbeatIntervalMs: number): AbsenceLimits {
  const heartbeatMs = Math.max(30_000, 3 * heartbeatIntervalMs);
  return { sessionMs: 15_000, heartbeatMs, offlineMs: heartbeatMs, lostMs: 3_600_000, returnMs: 30_000 };
}

/** When anything was last heard of a host; undefined = never. */
export function lastSeenMs(signs: NodeSigns): number | undefined {
  const seen = [signs.sessionSeenMs, signs.heartbeatMs].filter((at) => at !== undefined);
  return seen.length === 0 ? undefined : Math.max(...seen);
}

/** What a decision about a host rests on besides its signs. */
export interface WatchClock {
  readonly nowMs: number;
  /** Since when we look without a break: silence while we were away ourselves says nothing about a host. */
  readonly watchedSinceMs: number;
  /** True: the silence looks like a fault of ours, so nothing may follow from it. */
  readonly braked: boolean;
}

/** The state that the signs mean. */
export function nodeState(current: NodeState, signs: NodeSigns, limits: AbsenceLimits, clock: WatchClock): NodeState {
  const seenMs = lastSeenMs(signs);
  if (current === "removed") return "removed";
  if (seenMs === undefined) return "enrolled";
  const gone = current === "offline" || current === "lost";
  // Unwatched silence is forgiven to a host that was there, but is no proof that one that was gone is back.
  const forgivenMs = gone ? Number.NEGATIVE_INFINITY : clock.watchedSinceMs;
  const silenceMs = (sinceMs: number): number => clock.nowMs - Math.max(sinceMs, forgivenMs);
  // Who was heard since then is back, and may vanish again.
  const isReturning = !gone && seenMs < clock.watchedSinceMs;
  const absenceMs = clock.nowMs - (isReturning ? clock.watchedSinceMs + limits.returnMs : seenMs);
  const beats = signs.present && signs.heartbeatMs !== undefined && silenceMs(signs.heartbeatMs) <= limits.heartbeatMs;
  const talks = signs.sessionSeenMs !== undefined && silenceMs(signs.sessionSeenMs) <= limits.sessionMs;
  if (beats && (talks || !signs.holdsSession)) return "online";
  if (beats || talks || absenceMs < limits.offlineMs) return "degraded";
  const watchedSilenceMs = clock.nowMs - Math.max(seenMs, clock.watchedSinceMs);
  if (current === "lost") return "lost";
  return gone && !clock.braked && watchedSilenceMs >= limits.lostMs ? "lost" : "offline";
}

const vanishWindowMs = 120_000;
const vanishCountMin = 3;

/**
 * Which absences look like a fault of ours: hosts that fell silent together, more than a third of the
 * fleet and at least three within two minutes. Returns their indices; no reaction may follow for them.
 */
export function vanishedTogether(silentSinceMs: readonly number[], fleetSize: number): ReadonlySet<number> {
  const order = silentSinceMs.map((atMs, index) => ({ atMs, index })).toSorted((a, b) => a.atMs - b.atMs);
  const together = new Set<number>();
  let first = 0;
  // Windows overlap: each absence is noted once, or a fleet of thousands would cost seconds.
  let noted = 0;
  for (const [last, { atMs }] of order.entries()) {
    while (atMs - (order[first]?.atMs ?? atMs) > vanishWindowMs) first++;
    const count = last - first + 1;
    if (count < vanishCountMin || count * 3 <= fleetSize) continue;
    for (const { index } of order.slice(Math.max(first, noted), last + 1)) together.add(index);
    noted = last + 1;
  }
  return together;
}
