/** A closed range of sequence numbers. */
export interface SeqRange {
  readonly from: bigint;
  readonly to: bigint;
}

/** Ranges in rising order, none touching the next. */
export type SeqRanges = readonly SeqRange[];

/** How many numbers of `range` lie in `ranges`. */
export function overlapCount(ranges: SeqRanges, range: SeqRange): bigint {
  let count = 0n;
  for (const known of ranges) {
    const from = known.from > range.from ? known.from : range.from;
    const to = known.to < range.to ? known.to : range.to;
    if (to >= from) count += to - from + 1n;
  }
  return count;
}

/** `ranges` without the numbers of `range`. */
export function subtractRange(ranges: SeqRanges, range: SeqRange): SeqRange[] {
  return ranges.flatMap((known) => {
    if (known.to < range.from || known.from > range.to) return [known];
    const rest: SeqRange[] = [];
    if (known.from < range.from) rest.push({ from: known.from, to: range.from - 1n });
    if (known.to > range.to) rest.push({ from: range.to + 1n, to: known.to });
    return rest;
  });
}

/** `ranges` with the numbers of `range`; ranges that touch become one. */
export function addRange(ranges: SeqRanges, range: SeqRange): SeqRange[] {
  let { from, to } = range;
  const before: SeqRange[] = [];
  const after: SeqRange[] = [];
  for (const known of ranges) {
    if (known.to + 1n < from) before.push(known);
    else if (known.from > to + 1n) after.push(known);
    else {
      if (known.from < from) from = known.from;
      if (known.to > to) to = known.to;
    }
  }
  return [...before, { from, to }, ...after];
}
