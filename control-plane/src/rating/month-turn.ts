/**
 * For a pass that begins at `now` and takes time: says whether the month (UTC) that it has accrued is over by now, so
 * that nothing is done about it in the new one.
 */
export function watchMonthTurn(now: Date): () => boolean {
  const startedMs = performance.now();
  const monthOf = (at: Date): string => at.toISOString().slice(0, 7);
  return () => monthOf(new Date(now.getTime() + performance.now() - startedMs)) !== monthOf(now);
}
