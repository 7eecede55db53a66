/** What is known at the moment of a forecast. All amounts are in one currency; a number is precise enough for an estimate. */
export interface ForecastBasis {
  /**
   * Charges of the last complete UTC days that vary from day to day, oldest first. At most about two months: older
   * days say little about the coming ones.
   */
  readonly dailyAmounts: readonly number[];
  /** Days until the month ends, e.g. 3.25. */
  readonly remainingDays: number;
}

/** What the rest of the month will cost. */
export interface RestForecast {
  readonly expected: number;
  /** Holds the real amount four times in five; undefined when too few days are known to say so. */
  readonly interval: { readonly lower: number; readonly upper: number } | undefined;
}

/** Share of months whose real amount lies in the interval. */
export const intervalLevel = 0.8;
/** With fewer complete days than this there is no interval. */
export const intervalDaysMin = 7;

/** 90 % quantile of the normal distribution: 10 % lie above an 80 % interval and 10 % below. */
const normalQuantile = 1.2815515655446004;

/** How fast the level follows the days. 0: it never moves; 1: tomorrow is as today. */
const pacesAllowed = [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
/** Before anything is known a steady level is the likeliest; the other paces share the rest. */
const steadyPrior = 0.6;

/**
 * Forecasts a sum of daily amounts with the local level model (simple exponential smoothing in its state space
 * form; R. Hyndman et al., "Forecasting with Exponential Smoothing", 2008, chapters 2 and 6). With errors e and pace a
 * the amount of day t is level + e, and the level moves by a·e; so an error of a coming day counts in that day and, times a, in each
 * after it, which gives the variance of the sum. How fast the level moves is not known: each pace is fitted,
 * weighs as likely as it makes the days seen, and the spread between paces widens the interval. Errors count by Student's distribution.
 */
export function forecastRest({ dailyAmounts, remainingDays }: ForecastBasis): RestForecast {
  if (dailyAmounts.length === 0 || remainingDays <= 0) {
    return { expected: 0, interval: remainingDays <= 0 ? { lower: 0, upper: 0 } : undefined };
  }
  const fits = pacesAllowed.map((pace) => fit(dailyAmounts, remainingDays, pace));
  const weights = weightsOf(fits, dailyAmounts.length);
  const mean = sum(fits.map((one, index) => one.mean * (weights[index] ?? 0)));
  const expected = Math.max(0, mean);
  if (dailyAmounts.length < intervalDaysMin) return { expected, interval: undefined };
  const variance = sum(fits.map((one, index) => (one.variance + (one.mean - mean) ** 2) * (weights[index] ?? 0)));
  const reach = studentQuantile(dailyAmounts.length - 2) * Math.sqrt(variance);
  return { expected, interval: { lower: Math.max(0, mean - reach), upper: Math.max(0, mean + reach) } };
}

interface Fit {
  readonly pace: number;
  readonly squaredErrors: number;
  readonly mean: number;
  readonly variance: number;
}

/** The model with one pace, its first level by least squares, and what it says of the coming days. */
function fit(amounts: readonly number[], remainingDays: number, pace: number): Fit {
  // One-step errors are linear in the first level: error(t) = begun(t) − (1 − pace)^t · first.
  let [levelFromZero, fade, crossed, faded] = [0, 1, 0, 0];
  const begun = amounts.map((amount) => {
    const error = amount - levelFromZero;
    levelFromZero += pace * error;
    crossed += error * fade;
    faded += fade * fade;
    fade *= 1 - pace;
    return error;
  });
  const first = crossed / faded;
  const squaredErrors = sum(begun.map((error, index) => (error - (1 - pace) ** index * first) ** 2));
  const errorVariance = squaredErrors / Math.max(1, amounts.length - 2);
  const level = levelFromZero + fade * first;
  const ofComing = varianceOfSum(remainingDays, pace);
  const ofFirst = (remainingDays * fade) ** 2 / faded;
  return { pace, squaredErrors, mean: level * remainingDays, variance: errorVariance * (ofComing + ofFirst) };
}

/** Variance of the sum of the coming days, in units of the variance of one error. The rest of today is a part of a day. */
function varianceOfSum(days: number, pace: number): number {
  const whole = Math.floor(days);
  const part = days - whole;
  const own = part === 0 ? Array<number>(whole).fill(1) : [part, ...Array<number>(whole).fill(1)];
  let [after, variance] = [0, 0];
  for (const share of own.toReversed()) {
    // Independent moments of a day: a part of it has that part of its variance.
    variance += (Math.sqrt(share) + pace * after) ** 2;
    after += share;
  }
  return variance;
}

/** How likely each pace is: the likelihood of the days seen, times the prior. */
function weightsOf(fits: readonly Fit[], days: number): number[] {
  const smallest = Math.min(...fits.map(({ squaredErrors }) => squaredErrors));
  const likelihoods = fits.map(({ pace, squaredErrors }) => {
    const prior = pace === 0 ? steadyPrior : (1 - steadyPrior) / (pacesAllowed.length - 1);
    // Days that are all alike fit every pace without error.
    return prior * (smallest <= 0 ? Number(squaredErrors <= 0) : (smallest / squaredErrors) ** ((days - 1) / 2));
  });
  const total = sum(likelihoods);
  return likelihoods.map((likelihood) => likelihood / total);
}

/** 90 % quantile of Student's distribution, by its expansion (Abramowitz and Stegun, 26.7.5); right to 1 % from 4 degrees on. */
function studentQuantile(degrees: number): number {
  const z = normalQuantile;
  return (
    z +
    (z ** 3 + z) / (4 * degrees) +
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * degrees ** 2) +
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / (384 * degrees ** 3)
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
