import { expect, test } from "vitest";
import { accruedMonth } from "../../../test/support/accrued-month.ts";
import type { ServerSentEvent } from "../http/event-stream.ts";
import { followAccrual } from "./follow-accrual.ts";

const at = new Date("2026-01-15T12:00:00Z");

/** Follows accruals that are seen one after the other; the last one stays. */
function follow(costs: readonly string[]) {
  const stop = new AbortController();
  let looks = 0;
  const events = followAccrual({
    look: async (now) => {
      const cost = costs[Math.min(looks++, costs.length - 1)] ?? "0";
      if (cost === "fails") throw new Error("the database is away");
      return await Promise.resolve(accruedMonth(now, [{ podId: "a", parts: { plan: cost } }]));
    },
    clock: () => at,
    everyMs: 1,
    signal: stop.signal,
  });
  return { events, stop, looks: () => looks };
}

function amountOf(event: ServerSentEvent | undefined): unknown {
  return JSON.parse(JSON.stringify(event?.data)).totalCost.amount;
}

test("tells the figure at once and again whenever it is another one", async () => {
  const { events, stop, looks } = follow(["1", "1", "1", "1.5", "1.5", "2"]);
  const seen: unknown[] = [];
  for await (const event of events) {
    seen.push(amountOf(event));
    if (seen.length === 3) stop.abort();
  }
  expect(seen).toEqual(["1.00", "1.50", "2.00"]);
  expect(looks()).toBe(6);
});

test("a client that goes while it waits ends the waiting", async () => {
  const { events, stop } = follow(["1"]);
  await events.next();
  const waiting = events.next();
  stop.abort();
  expect(await waiting).toEqual({ done: true, value: undefined });
});

test("a look that fails ends the stream with its error", async () => {
  const { events } = follow(["1", "fails"]);
  await events.next();
  await expect(events.next()).rejects.toThrow("the database is away");
});
