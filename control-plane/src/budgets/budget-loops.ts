import type { Loop } from "../platform/loops.ts";
import { alertEndedMonth, evaluateBudgets, type BudgetDeps } from "./evaluate-budgets.ts";

/** Twice as often as promised, so that a pass that is slow or skipped keeps the promise. */
const evaluateEveryMs = 30_000;

/** Longest time from a spend to its judgement that is promised, with everything at work. */
const judgedWithinSeconds = 60;
/** Longest time that a guest is given to shut down, with the forced stop after it. */
const stoppedWithinSeconds = 120;

/**
 * Longest time from the moment at which a limit is reached to the stop of the pods, by which the worst-case overshoot
 * is computed: the measuring of an interval, the evaluation, the shutdown.
 */
export function evaluationDelaySeconds(sampleIntervalMs: number): number {
  return Math.ceil(sampleIntervalMs / 1_000) + judgedWithinSeconds + stoppedWithinSeconds;
}

/** Evaluates all budgets on live figures. */
export function budgetLoops(deps: BudgetDeps): Loop[] {
  return [
    {
      name: "evaluate-budgets",
      everyMs: evaluateEveryMs,
      async run() {
        const report = await evaluateBudgets(deps, new Date());
        return Object.values(report).every((count) => count === 0) ? undefined : { ...report };
      },
    },
    {
      name: "alert-ended-month",
      everyMs: 10 * 60_000,
      async run() {
        const alerts = await alertEndedMonth(deps, new Date());
        return alerts === 0 ? undefined : { alerts };
      },
    },
  ];
}
