import type { Loop } from "../platform/loops.ts";
import { evaluateBandwidth, type BandwidthDeps } from "./evaluate-bandwidth.ts";

const evaluateEveryMs = 60_000;

/** Watches the traffic of pods against their plans. */
export function bandwidthLoops(deps: BandwidthDeps): Loop[] {
  return [
    {
      name: "evaluate-bandwidth",
      everyMs: evaluateEveryMs,
      async run() {
        const report = await evaluateBandwidth(deps, new Date());
        return Object.values(report).every((count) => count === 0) ? undefined : { ...report };
      },
    },
  ];
}
