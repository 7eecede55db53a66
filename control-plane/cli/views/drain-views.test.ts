import { expect, test } from "vitest";
import { drainLines, renderDrain, renderDrains, requireEnd } from "./drain-views.ts";

const waiting = {
  name: "shop-1",
  vmid: 100_000,
  state: "claimed",
  target: "pve2",
  strategy: "backup-restore",
  step: null,
  percent: 0,
  expectedDowntimeMs: 30_000,
  downtimeMs: null,
  archiveAgeSeconds: null,
  blocker: null,
};
const moving = { ...waiting, name: "shop-2", vmid: 100_001, state: "moving", step: "restore", percent: 40 };
const moved = { ...waiting, name: "shop-3", vmid: 100_002, state: "moved", percent: 100, downtimeMs: 21_000 };
const full = { code: "NO_CAPACITY", message: "No reachable host has room." };
const blocked = { ...waiting, name: "shop-4", vmid: 100_003, state: "blocked", target: null, blocker: full };
const left = { ...waiting, name: "shop-5", vmid: 100_004, state: "left" };

const drain = {
  id: "d1",
  nodeId: "n1",
  node: "pve1",
  kind: "drain",
  state: "moving",
  reason: "memory is replaced",
  requestedBy: "user:1",
  requestedByEmail: null,
  deadlineAt: "2026-01-01T04:00:00Z",
  returnHome: true,
  cancelRequestedAt: null,
  outcome: null,
  startedAt: "2026-01-01T00:00:00Z",
  finishedAt: null,
  returnedAt: null,
  percent: 46,
  waitsFor: null,
  counts: { moved: 1, moving: 1, claimed: 1 },
  downtimeMs: { p50: 300, p95: 21_000, max: 21_000 },
  pods: [waiting, moved, moving],
};
const over = { ...drain, finishedAt: "2026-01-01T00:10:00Z" };
const incomplete = {
  ...over,
  state: "incomplete",
  outcome: "2 pods are still on the host.",
  counts: { moved: 1, blocked: 1, left: 1 },
  pods: [moved, blocked, left],
};

test("progress: the whole, then those on their way, what keeps others, and who is done; nobody who just waits", () => {
  expect(drainLines(drain)).toEqual([
    "pve1 [###########.............]  46 % moving: 1 claimed, 1 moving, 1 moved",
    "  shop-2 (100001) to pve2: 40 % restore",
    "  shop-3 (100002): moved to pve2, was away 21s",
  ]);
  const busy = { code: "POD_BUSY", message: "Other work on the pod is not finished: backup." };
  expect(
    drainLines({ ...drain, pods: [waiting, { ...waiting, state: "pending", target: null, blocker: busy }] }),
  ).toEqual([
    "pve1 [###########.............]  46 % moving: 1 claimed, 1 moving, 1 moved",
    "  shop-1 (100000): pending, Other work on the pod is not finished: backup.",
  ]);
  const inVain = { ...blocked, downtimeMs: 9_000 };
  expect(drainLines({ ...incomplete, pods: [moved, blocked, inVain] }).slice(1, 3)).toEqual([
    "  shop-4 (100003): blocked, No reachable host has room.",
    "  shop-4 (100003): blocked, was away 9.0s, No reachable host has room.",
  ]);
  const copy = "pve1 has yet to say that nothing is left there of shop-3 (100002); it is offline.";
  const allMoved = { ...drain, percent: 99, waitsFor: copy, counts: { moved: 1 }, pods: [moved] };
  expect(drainLines(allMoved).slice(0, 2)).toEqual([
    "pve1 [#######################.]  99 % moving: 1 moved",
    `  waits: ${copy}`,
  ]);
  expect(renderDrain(allMoved, 0)).toMatch(/^waits for: +pve1 has yet to say /m);
  expect(drainLines({ ...drain, cancelRequestedAt: "2026-01-01T00:01:00Z" })[0]).toContain("moving, being cancelled");
  expect(drainLines({ ...drain, state: "planning", percent: 100, pods: [], counts: {} })).toEqual(["pve1 planning"]);
});

test("a drain by itself says when it has to be over, and each pod with its blocker", () => {
  const now = Date.parse("2026-01-01T01:00:00Z");
  const text = renderDrain(drain, now);
  expect(text).toMatch(/^deadline: +2026-01-01T04:00:00Z \(in 3h\)$/m);
  expect(text).toMatch(/^pods were away: +0\.3s half of them, 21s nearly all, 21s at most$/m);
  expect(text).toMatch(/^come home: +when the host is open again$/m);
  expect(text).toMatch(/^100001 +shop-2 +moving +pve2 +backup-restore +40 +30s +- +- +-$/m);
  const ended = renderDrain(incomplete, now);
  expect(ended).toMatch(/^took: +10m$/m);
  expect(ended).not.toContain("deadline");
  expect(ended).toMatch(/^100003 +shop-4 +blocked +- .* NO_CAPACITY$/m);
  expect(ended).toMatch(/^pods: +1 moved, 1 blocked, 1 left behind$/m);
  expect(ended).toMatch(/^100004 +shop-5 +left behind +/m);
  expect(renderDrain({ ...drain, pods: [], counts: {} }, now)).toMatch(/^pods: +no pods$/m);
  expect(renderDrains([incomplete], now)).toMatch(/^pve1 +drain +incomplete +1h +10m +user:1 .* still on the host\.$/m);
});

test("a pod that has not come home says why: until the next try, and when it stays away for good", () => {
  const why = { code: "NO_CAPACITY", message: "pve1 has no room." };
  const pods = [
    { ...moved, blocker: why },
    { ...moved, state: "stayed", downtimeMs: null, blocker: why },
  ];
  const told = [
    "shop-3 (100002): moved to pve2, was away 21s, not home yet: pve1 has no room.",
    "shop-3 (100002): stayed away on pve2, because pve1 has no room.",
  ];
  const drained = { ...over, state: "drained", counts: { moved: 1, stayed: 1 }, pods };
  expect(drainLines(drained).slice(1)).toEqual(told.map((line) => `  ${line}`));
  expect(renderDrain(drained, 0)).toContain(`\n\n${told.join("\n")}`);
  expect(renderDrain(drained, 0)).toMatch(/^pods: +1 moved, 1 stayed$/m);
  expect(renderDrain({ ...drained, pods: [moved] }, 0)).not.toContain("home yet");
});

test("an end that nobody wanted has the reasons by pod", () => {
  expect(() => requireEnd({ ...over, state: "drained" }, ["drained"])).not.toThrow();
  expect(() => requireEnd({ ...over, state: "cancelled" }, ["cancelled", "drained"])).not.toThrow();
  expect(() => requireEnd(incomplete, ["drained"])).toThrow(
    [
      "The drain of pve1 ended incomplete: 2 pods are still on the host.",
      "  shop-4 (100003): No reachable host has room. (NO_CAPACITY)",
      "  shop-5 (100004): It was left where it is.",
    ].join("\n"),
  );
});
