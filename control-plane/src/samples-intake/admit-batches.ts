import { addRange, overlapCount, subtractRange, type SeqRange, type SeqRanges } from "./sequence-ranges.ts";

/** A range above the watermark, with what its batches say about completeness. */
export interface PendingRange extends SeqRange {
  /** Everything that ended before this instant is complete once the watermark has passed the range; ms. */
  readonly completeUntilMs: number;
}

/**
 * What is known of one spool. Settled are all numbers up to `contiguousSeq` and those in `pending`; of
 * the settled numbers those in `gaps` were never stored, all others were.
 */
export interface SpoolState {
  readonly contiguousSeq: bigint;
  /** Follows the watermark; 0 when nothing is known. */
  readonly completeUntilMs: number;
  readonly pending: readonly PendingRange[];
  readonly gaps: SeqRanges;
}

/** The header of a batch as its sender wrote it. */
export interface OfferedBatch extends SeqRange {
  /** Numbers below it that did not arrive will never come. */
  readonly lowestUnackedSeq: bigint;
  readonly completeUntilMs: number;
  /** The content cannot be stored: the numbers are settled as a gap, the message is kept elsewhere. */
  readonly quarantined: boolean;
}

export type BatchFault =
  | "RANGE_INVALID"
  | "RANGE_TOO_LONG"
  | "RANGE_TOO_FAR"
  | "RANGE_TOO_SCATTERED"
  | "RANGE_OVERLAPS";

/** `new` is stored, `duplicate` was stored before, `quarantined` is kept as a dead letter, anything else is the sender's fault. */
export type Verdict = "new" | "duplicate" | "quarantined" | BatchFault;

/** What to do with the batches of one spool, in their order, and what is known afterwards. */
export interface Admission {
  readonly verdicts: readonly Verdict[];
  readonly state: SpoolState;
}

const rangeLengthMax = 100_000n;
const distanceMax = 1_000_000n;
/** A sender has eight batches under way; this many holes are nonsense and would cost us memory. */
const pendingRangesMax = 1_000;

/**
 * Decides which batches of a spool count. A batch counts once: when none of its numbers is stored.
 * One that is partly stored contradicts what its sender said before; what is left of it is settled as a
 * gap so that the sender's queue moves on. A number in a gap that does arrive later counts: a gap only
 * says that nothing was stored for it.
 */
export function admitBatches(before: SpoolState, batches: readonly OfferedBatch[]): Admission {
  let state = before;
  const verdicts = batches.map((batch) => {
    const step = admitBatch(state, batch);
    state = step.state;
    return step.verdict;
  });
  return { verdicts, state };
}

function admitBatch(state: SpoolState, batch: OfferedBatch): { verdict: Verdict; state: SpoolState } {
  if (batch.from < 1n || batch.to < batch.from) return { verdict: "RANGE_INVALID", state };
  const length = batch.to - batch.from + 1n;
  if (length > rangeLengthMax) return { verdict: "RANGE_TOO_LONG", state };
  // A batch that is under way is itself not acknowledged, whatever its header says.
  const lowest = batch.lowestUnackedSeq < batch.from ? batch.lowestUnackedSeq : batch.from;
  const floor = lowest - 1n > state.contiguousSeq ? lowest - 1n : state.contiguousSeq;
  if (batch.to > floor + distanceMax) return { verdict: "RANGE_TOO_FAR", state };

  const passed = passHoles(state, lowest);
  const stored = storedCount(passed, batch);
  if (stored === length) return { verdict: "duplicate", state: passed };
  const settled = settle(passed, batch);
  if (settled.pending.length > pendingRangesMax) return { verdict: "RANGE_TOO_SCATTERED", state };
  if (stored === 0n && !batch.quarantined) {
    return { verdict: "new", state: { ...settled, gaps: subtractRange(settled.gaps, batch) } };
  }
  const gaps = unstored(passed, batch).reduce<SeqRange[]>(addRange, [...settled.gaps]);
  return { verdict: stored === 0n ? "quarantined" : "RANGE_OVERLAPS", state: { ...settled, gaps } };
}

/** Numbers below `lowest` that are not settled are lost on the host: they become gaps and the watermark passes them. */
function passHoles(state: SpoolState, lowest: bigint): SpoolState {
  if (lowest - 1n <= state.contiguousSeq) return state;
  const passed: SeqRange = { from: state.contiguousSeq + 1n, to: lowest - 1n };
  const holes = state.pending.reduce<SeqRange[]>((left, range) => subtractRange(left, range), [passed]);
  const settled = settle(state, { ...passed, completeUntilMs: 0 });
  return { ...settled, gaps: holes.reduce<SeqRange[]>(addRange, [...settled.gaps]) };
}

function storedCount(state: SpoolState, range: SeqRange): bigint {
  const settled = overlapCount([{ from: 1n, to: state.contiguousSeq }, ...state.pending], range);
  return settled - overlapCount(state.gaps, range);
}

/** The numbers of `range` that are not stored. */
function unstored(state: SpoolState, range: SeqRange): SeqRange[] {
  const settled = [{ from: 1n, to: state.contiguousSeq }, ...state.pending];
  const stored = state.gaps.reduce<SeqRange[]>(
    (left, gap) => subtractRange(left, gap),
    settled.filter((known) => known.to >= known.from),
  );
  return stored.reduce<SeqRange[]>((left, known) => subtractRange(left, known), [range]);
}

/** Adds a range to the settled numbers and moves the watermark over everything that now follows it. */
function settle(state: SpoolState, range: PendingRange): SpoolState {
  let { from, to, completeUntilMs } = range;
  const rest: PendingRange[] = [];
  for (const known of state.pending) {
    if (known.to + 1n < from || known.from > to + 1n) {
      rest.push(known);
      continue;
    }
    if (known.from < from) from = known.from;
    if (known.to > to) to = known.to;
    completeUntilMs = Math.max(completeUntilMs, known.completeUntilMs);
  }
  if (from > state.contiguousSeq + 1n) {
    const pending = [...rest, { from, to, completeUntilMs }].toSorted((a, b) => (a.from < b.from ? -1 : 1));
    return { ...state, pending };
  }
  return {
    ...state,
    contiguousSeq: to > state.contiguousSeq ? to : state.contiguousSeq,
    completeUntilMs: Math.max(state.completeUntilMs, completeUntilMs),
    pending: rest,
  };
}
