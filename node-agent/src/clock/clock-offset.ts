/**
 * The arithmetic of the disciplined clock, without any clock in it.
 *
 * Times of the monotonic clock and of 1970 differ by an offset. It is learned from exchanges with
 * the control plane and then moved slowly, so that neither a step of the host's wall clock nor a
 * slow network makes metered time jump.
 */

/** An exchange slower than this says too little about the time between its ends. */
export const MAX_ROUND_TRIP_MS = 500;
/** How much of a minute the offset may move: fast enough for any crystal, too slow to bend a bill. */
export const MAX_SLEW_MS_PER_MINUTE = 500;

/** One question and answer about the time. */
export interface ClockExchange {
  /** Monotonic clock when the question left, ms. */
  readonly sentMonotonicMs: number;
  /** Monotonic clock when the answer came, ms. */
  readonly receivedMonotonicMs: number;
  /** The control plane's clock between the two, ms since 1970 UTC. */
  readonly serverTimeMs: number;
}

/** What is known about the offset between the monotonic clock and 1970. */
export interface OffsetState {
  /** Offset in force at `sinceMonotonicMs`, ms. */
  readonly offsetMs: number;
  readonly sinceMonotonicMs: number;
  /** Where the offset is moving to, ms. */
  readonly targetMs: number;
  /** Round trip of the exchange that set the target, ms: its error is at most half of it. */
  readonly roundTripMs: number;
}

/** The offset in force at an instant: the target, or as far towards it as the slew limit allows. */
export function offsetAt(state: OffsetState, monotonicMs: number): number {
  const elapsedMs = Math.max(0, monotonicMs - state.sinceMonotonicMs);
  const allowedMs = (elapsedMs * MAX_SLEW_MS_PER_MINUTE) / 60_000;
  const missingMs = state.targetMs - state.offsetMs;
  if (Math.abs(missingMs) <= allowedMs) return state.targetMs;
  return state.offsetMs + Math.sign(missingMs) * allowedMs;
}

/**
 * What is known after an exchange. The first one is believed at once, since there is nothing to be
 * continuous with; later ones only move the target. Undefined when the exchange tells nothing: it
 * was too slow, ran backwards, or agrees with the target within its own error.
 */
export function afterExchange(state: OffsetState | undefined, exchange: ClockExchange): OffsetState | undefined {
  const roundTripMs = exchange.receivedMonotonicMs - exchange.sentMonotonicMs;
  if (!(roundTripMs >= 0 && roundTripMs < MAX_ROUND_TRIP_MS)) return undefined;
  const middleMs = exchange.sentMonotonicMs + roundTripMs / 2;
  const measuredMs = exchange.serverTimeMs - middleMs;
  const sinceMonotonicMs = exchange.receivedMonotonicMs;
  if (state === undefined) {
    return { offsetMs: measuredMs, sinceMonotonicMs, targetMs: measuredMs, roundTripMs };
  }
  const agrees = Math.abs(measuredMs - state.targetMs) <= roundTripMs / 2;
  if (agrees && roundTripMs >= state.roundTripMs) return undefined;
  return {
    offsetMs: offsetAt(state, sinceMonotonicMs),
    sinceMonotonicMs,
    targetMs: measuredMs,
    roundTripMs,
  };
}
