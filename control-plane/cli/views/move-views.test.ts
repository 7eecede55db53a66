import { expect, test } from "vitest";
import { exitCodeOf } from "../exit-codes.ts";
import { renderDrainPlan, renderPlannedMove, requirePlaces, requireTarget } from "./move-views.ts";

const move = {
  name: "shop-1",
  vmid: 100_000,
  target: { node: "pve2", storage: "local-lvm" },
  strategy: "backup-restore",
  expectedDowntimeMs: 30_000,
  expectedDurationMs: null,
  backupsLeftBehind: ["b1"],
  blocker: null,
  commands: [
    { node: "pve1", command: "backup", lines: ["pct shutdown 100000", "vzdump 100000"], reason: null },
    { node: "pve2", command: "restore", lines: null, reason: "The node did not answer within 3 s." },
  ],
};
const nowhere = (code: string) => ({
  ...move,
  name: "shop-2",
  vmid: 100_001,
  target: null,
  strategy: null,
  backupsLeftBehind: [],
  blocker: { code, message: "It has nowhere to go." },
});
const plan = { node: "pve1", moves: [move, nowhere("NO_CAPACITY")], movable: 1, blocked: 1, totalMs: null };

/** The exit code that the check ends the command with; 0: it goes on. */
function exitOf(check: () => void): number {
  try {
    check();
    return 0;
  } catch (error) {
    return exitCodeOf(error);
  }
}

test("one pod's move in words, and the exit code that the real one would have", () => {
  expect(renderPlannedMove(move)).toBe(
    [
      "shop-1 (100000) would move to pve2 (storage local-lvm) by backup-restore.",
      "Away: about 30s; all of it: not known yet",
      "Out of reach from there: 1 backup (b1)",
      "The hosts would be told:",
      "  pve1: backup",
      "    pct shutdown 100000",
      "    vzdump 100000",
      "  pve2: restore (The node did not answer within 3 s.)",
      "Nothing was changed.",
    ].join("\n"),
  );
  expect(renderPlannedMove(nowhere("NO_WAY"))).toMatch(/^shop-2 \(100001\) would not move\./);
  expect(renderPlannedMove(nowhere("NO_WAY"), "pve9")).toMatch(/^shop-2 \(100001\) would not move to pve9\./);
  const blocked = ["NO_CAPACITY", "NO_HOST", "NO_WAY"].map(nowhere);
  const codes = [move, ...blocked].map((one) => exitOf(() => requireTarget(one)));
  expect(codes).toEqual([0, 6, 6, 4]);
});

test("a host's plan: a line for each pod; what would stay is told by pod", () => {
  const text = renderDrainPlan(plan);
  expect(text).toMatch(/^100000 +shop-1 +pve2 +local-lvm +backup-restore +30s +- +- +1 +-$/m);
  expect(text).toMatch(/^100001 +shop-2 +- .* NO_CAPACITY$/m);
  expect(text).toContain("1 of 2 pods of pve1 would find a place elsewhere; time for all of it: not known yet");
  expect(() => requirePlaces(plan)).toThrow(
    "pve1 would not be emptied:\n  shop-2 (100001): It has nowhere to go. (NO_CAPACITY)",
  );
  expect(exitOf(() => requirePlaces(plan))).toBe(8);
  expect(() => requirePlaces(plan, [], true)).toThrow(/^Not all pods of pve1 would come back:\n {2}shop-2/);
  const lost = { ...plan, moves: [nowhere("NO_BACKUP")] };
  expect([exitOf(() => requirePlaces(lost)), exitOf(() => requirePlaces(lost, ["NO_BACKUP"]))]).toEqual([8, 0]);
  expect(renderDrainPlan({ ...plan, moves: [], movable: 0 })).toMatch(/^0 of 0 pods of pve1/);
});

test("of an evacuation: how old what the pods come back from is", () => {
  const archive = { backupId: "b1", madeAt: "2026-01-01T00:00:00Z", ageSeconds: 7_200 };
  const text = renderDrainPlan({
    ...plan,
    moves: [
      { ...move, archive },
      { ...move, vmid: 7, archive: null },
    ],
  });
  expect(text).toMatch(/^100000 .* backup, 2h old /m);
  expect(text).toMatch(/^ +7 .* its own disk /m);
});
