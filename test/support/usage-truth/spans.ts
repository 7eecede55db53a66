import type { Span } from "./story.ts";

/** What two stretches have in common; undefined when that is nothing. */
export function common(one: Span, other: Span): Span | undefined {
  const fromMs = Math.max(one.fromMs, other.fromMs);
  const toMs = Math.min(one.toMs, other.toMs);
  return fromMs < toMs ? { fromMs, toMs } : undefined;
}

/** What is left of a stretch without others. */
export function without(span: Span, others: readonly Span[]): Span[] {
  return others.reduce<Span[]>(
    (left, other) =>
      left.flatMap((part) => {
        if (common(part, other) === undefined) return [part];
        const pieces = [
          { fromMs: part.fromMs, toMs: other.fromMs },
          { fromMs: other.toMs, toMs: part.toMs },
        ];
        return pieces.filter((piece) => piece.fromMs < piece.toMs);
      }),
    [span],
  );
}

/** Time that some stretches that do not overlap have within another one, ms. */
export function timeWithin(spans: readonly Span[], frame: Span): number {
  return spans.reduce((sum, span) => {
    const part = common(span, frame);
    return part === undefined ? sum : sum + part.toMs - part.fromMs;
  }, 0);
}
