import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  absenceLimits,
  nodeState,
  nodeStates,
  vanishedTogether,
  type NodeSigns,
  type NodeState,
  type WatchClock,
} from "./node-state.ts";

const limits = absenceLimits(10_000);
const nowMs = Date.UTC(2026, 0, 1);
const clock: WatchClock = { nowMs, watchedSinceMs: 0, braked: false };
const ago = (ms: number): number => nowMs - ms;
const signs = (changes: Partial<NodeSigns> = {}): NodeSigns => ({
  sessionSeenMs: ago(1_000),
  heartbeatMs: ago(1_000),
  present: true,
  holdsSession: true,
  ...changes,
});

describe("the state of a host", () => {
  test.each<[string, NodeState, NodeSigns, Partial<WatchClock>, NodeState]>([
    ["never heard of", "enrolled", signs({ sessionSeenMs: undefined, heartbeatMs: undefined }), {}, "enrolled"],
    ["first session", "enrolled", signs({ heartbeatMs: undefined }), {}, "degraded"],
    ["both channels", "enrolled", signs(), {}, "online"],
    ["no heartbeats", "online", signs({ heartbeatMs: ago(31_000) }), {}, "degraded"],
    ["last will delivered", "online", signs({ present: false }), {}, "degraded"],
    ["no session", "online", signs({ sessionSeenMs: ago(16_000) }), {}, "degraded"],
    ["a reconnect", "online", signs({ sessionSeenMs: ago(5_000) }), {}, "online"],
    [
      "heartbeats alone are enough for other servers",
      "online",
      signs({ sessionSeenMs: undefined, holdsSession: false }),
      {},
      "online",
    ],
    [
      "both missing for 29 s",
      "degraded",
      signs({ sessionSeenMs: ago(29_000), heartbeatMs: ago(40_000) }),
      {},
      "degraded",
    ],
    [
      "both missing for 31 s",
      "degraded",
      signs({ sessionSeenMs: ago(31_000), heartbeatMs: ago(31_000) }),
      {},
      "offline",
    ],
    ["gone for an hour", "offline", signs({ sessionSeenMs: ago(3_600_000), heartbeatMs: ago(3_600_000) }), {}, "lost"],
    [
      "gone for an hour, but so is a third of the fleet",
      "offline",
      signs({ sessionSeenMs: ago(3_600_000), heartbeatMs: undefined }),
      { braked: true },
      "offline",
    ],
    ["back after being lost", "lost", signs(), {}, "online"],
    ["half back", "lost", signs({ heartbeatMs: ago(3_600_000) }), {}, "degraded"],
    [
      "silent while nobody watched",
      "online",
      signs({ sessionSeenMs: ago(600_000), heartbeatMs: ago(600_000) }),
      { watchedSinceMs: ago(5_000) },
      "online",
    ],
    [
      "on its way back after a break of ours",
      "degraded",
      signs({ sessionSeenMs: ago(600_000), heartbeatMs: ago(600_000) }),
      { watchedSinceMs: ago(59_000) },
      "degraded",
    ],
    [
      "not back after a break of ours",
      "degraded",
      signs({ sessionSeenMs: ago(600_000), heartbeatMs: ago(600_000) }),
      { watchedSinceMs: ago(60_000) },
      "offline",
    ],
    [
      "back after a break of ours, and gone again",
      "degraded",
      signs({ sessionSeenMs: ago(31_000), heartbeatMs: ago(32_000) }),
      { watchedSinceMs: ago(35_000) },
      "offline",
    ],
    [
      "gone before and while nobody watched",
      "offline",
      signs({ sessionSeenMs: ago(600_000), heartbeatMs: ago(600_000) }),
      { watchedSinceMs: ago(5_000) },
      "offline",
    ],
    [
      "an unwatched hour does not lose a host",
      "offline",
      signs({ sessionSeenMs: ago(7_200_000), heartbeatMs: undefined }),
      { watchedSinceMs: ago(60_000) },
      "offline",
    ],
    ["removed is final", "removed", signs(), {}, "removed"],
  ])("%s: %s", (_, current, observed, changes, expected) => {
    expect(nodeState(current, observed, limits, { ...clock, ...changes })).toBe(expected);
  });

  const anySigns = fc.record({
    sessionSeenMs: fc.option(fc.integer({ min: 0, max: 8_000_000 }).map(ago), { nil: undefined }),
    heartbeatMs: fc.option(fc.integer({ min: 0, max: 8_000_000 }).map(ago), { nil: undefined }),
    present: fc.boolean(),
    holdsSession: fc.boolean(),
  });

  test("looking twice at the same signs settles, and silence alone never improves a state", () => {
    const rank: Record<NodeState, number> = { online: 0, degraded: 1, enrolled: 2, offline: 2, lost: 3, removed: 4 };
    fc.assert(
      fc.property(
        fc.constantFrom(...nodeStates),
        anySigns,
        fc.integer({ min: 0, max: 9_000_000 }),
        (current, observed, laterMs) => {
          const once = nodeState(current, observed, limits, clock);
          // offline may go on to lost; then it stays.
          const twice = nodeState(once, observed, limits, clock);
          expect(nodeState(twice, observed, limits, clock)).toBe(twice);
          const later = nodeState(once, observed, limits, { ...clock, nowMs: nowMs + laterMs });
          expect(rank[later]).toBeGreaterThanOrEqual(rank[once]);
        },
      ),
    );
  });

  test("a braked host is never lost", () => {
    fc.assert(
      fc.property(
        fc.constantFrom<NodeState>("enrolled", "online", "degraded", "offline"),
        anySigns,
        (current, observed) => {
          expect(nodeState(current, observed, limits, { ...clock, braked: true })).not.toBe("lost");
        },
      ),
    );
  });
});

describe("hosts that vanish together", () => {
  test("three of eight within two minutes are braked, two or spread ones are not", () => {
    expect([...vanishedTogether([0, 60_000, 120_000], 8)]).toEqual([0, 1, 2]);
    expect(vanishedTogether([0, 60_000, 121_000], 8).size).toBe(0);
    expect(vanishedTogether([0, 0], 2).size).toBe(0);
    expect(vanishedTogether([0, 0, 0], 9).size).toBe(0);
  });

  test("agrees with the definition tried window by window", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 600_000 }), { maxLength: 12 }),
        fc.integer({ min: 1, max: 40 }),
        (silent, size) => {
          const expected = new Set<number>();
          for (const start of silent) {
            const inside = silent.flatMap((atMs, index) => (atMs >= start && atMs <= start + 120_000 ? [index] : []));
            if (inside.length >= 3 && inside.length > size / 3) inside.forEach((index) => expected.add(index));
          }
          expect(vanishedTogether(silent, size)).toEqual(expected);
        },
      ),
    );
  });
});
