import { expect, test } from "vitest";
import { createOfferSchedule } from "./offer-schedule.ts";

test("an offer is due again after 30 s, then ever later, at most every five minutes", () => {
  const schedule = createOfferSchedule();
  expect(schedule.isDue(1n, 0)).toBe(true);
  let nowMs = 0;
  for (const waitMs of [30_000, 60_000, 120_000, 240_000, 300_000, 300_000]) {
    schedule.offered(1n, nowMs);
    expect(schedule.isDue(1n, nowMs + waitMs - 1)).toBe(false);
    nowMs += waitMs;
    expect(schedule.isDue(1n, nowMs)).toBe(true);
  }
});

test("after a reconnect everything is due and waits are short again", () => {
  const schedule = createOfferSchedule();
  schedule.offered(1n, 0);
  schedule.offered(1n, 30_000);
  schedule.reset();
  expect(schedule.isDue(1n, 30_001)).toBe(true);
  schedule.offered(1n, 30_001);
  expect(schedule.isDue(1n, 60_001)).toBe(true);
});
