/** One figure, beside the same work done by the bare engine in the same run. */
export interface BenchResult {
  /** Name of the bench. */
  readonly bench: string;
  /** Our figure, in `unit`. */
  readonly value: number;
  readonly unit: string;
  /** The bare engine's figure, in the same unit. */
  readonly bare: number;
  /** Whatever else explains the figure. */
  readonly [detail: string]: unknown;
}

/** Prints the result as the last line: one JSON object with `ratio` = value / bare. */
export function printBenchResult(result: BenchResult): void {
  const round = (figure: number) => Number(figure.toPrecision(4));
  const { bench, value, unit, bare, ...details } = result;
  console.log(
    JSON.stringify({ bench, value: round(value), unit, bare: round(bare), ratio: round(value / bare), ...details }),
  );
}
