import { setTimeout as sleep } from "node:timers/promises";
import type { ServerSentEvent } from "../http/event-stream.ts";
import type { AccruedMonth } from "../rating/cost-parts.ts";

/** One look at a tenant's accrual of the running month. */
export type LookAtAccrual = (at: Date) => Promise<AccruedMonth>;

/**
 * Streams a tenant's accrued cost: at once, then whenever it is another one. Each event holds the whole figure, so a
 * client that missed some has lost nothing. Waits without holding a connection; after a look that fails the stream ends and the
 * client comes back by itself.
 */
export async function* followAccrual(options: {
  readonly look: LookAtAccrual;
  readonly clock: () => Date;
  readonly everyMs: number;
  readonly signal: AbortSignal;
}): AsyncGenerator<ServerSentEvent> {
  let shown: string | undefined;
  while (!options.signal.aborted) {
    const month = await options.look(options.clock());
    const figure = `${month.yearMonth} ${month.total.toString()}`;
    if (figure !== shown) yield { event: "accrued", data: liveCost(month) };
    shown = figure;
    await sleep(options.everyMs, undefined, { signal: options.signal }).catch(() => undefined); // the loop sees the end
  }
}

/** What is shown of an accrual: the amount to its last place and the pods, dearest first. */
function liveCost(month: AccruedMonth) {
  return {
    yearMonth: month.yearMonth,
    at: month.at,
    totalCost: { amount: month.total.toString(), currency: month.currency },
    pods: month.perPod
      .toSorted((a, b) => b.total.compare(a.total))
      .map(({ podId, podName, total }) => ({
        podId,
        podName,
        totalCost: { amount: total.toString(), currency: total.currency },
      })),
  };
}
