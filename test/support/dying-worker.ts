/**
 * Ends a worker at its n-th boundary as a kill would: what it had not committed is gone, what it had is there. Workers of
 * the test's own process are dead when they throw everywhere from then on.
 */
export function dyingAt(nth: number): {
  onBoundary: (boundary: string, task: { step: string }) => Promise<void>;
  where: () => string | undefined;
} {
  let reached = 0;
  let where: string | undefined;
  return {
    where: () => where,
    async onBoundary(boundary, task) {
      // A claim without a step is only a lease that runs out.
      if (boundary === "claimed") return;
      reached += 1;
      if (reached < nth) return;
      where ??= `${boundary} ${task.step}`;
      await Promise.reject(new Error("killed"));
    },
  };
}
