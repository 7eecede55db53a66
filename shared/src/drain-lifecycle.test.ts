import { expect, test } from "vitest";
import { drainEvents, drainStates, isDrainOver, nextDrainState, type DrainState } from "./drain-lifecycle.ts";

function reachableFrom(start: DrainState): Set<DrainState> {
  const seen = new Set<DrainState>([start]);
  for (const state of seen) {
    for (const event of drainEvents) {
      const next = nextDrainState(state, event);
      if (next !== undefined) seen.add(next);
    }
  }
  return seen;
}

test("every state of a drain can be reached, and every drain can end", () => {
  expect([...reachableFrom("planning")].toSorted()).toEqual([...drainStates].toSorted());
  for (const state of drainStates) expect([...reachableFrom(state)].some(isDrainOver)).toBe(true);
});

test("what is over stays over", () => {
  expect(drainStates.filter(isDrainOver)).toEqual(["drained", "incomplete", "cancelled"]);
});
