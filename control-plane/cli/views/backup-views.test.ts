import { expect, test } from "vitest";
import { describeRemoval, renderRestorePlan } from "./backup-views.ts";

test("of a backup that is gone already nobody is told to remove it", () => {
  expect(describeRemoval({ id: "b1", state: "available" })).toBe("b1: its host is told to remove it");
  expect(describeRemoval({ id: "b1", state: "pruned" })).toBe("b1: it is pruned, and nothing is left of it");
});

test("a restore in words: what is lost in place, and what a new pod would come to", () => {
  const plan = {
    name: "shop-1",
    vmid: 100_000,
    backup: { id: "b1", madeAt: "2026-11-26T00:00:00Z", ageSeconds: 3_600 },
    newerBackups: 1,
    newPod: null,
    runs: true,
    commands: [{ node: "pve1", command: "restore", lines: ["pct restore <vmid>"], reason: null }],
  };
  const told = ["Its host would be told:", "  pve1: restore", "    pct restore <vmid>", "Nothing was changed."];
  expect(renderRestorePlan(plan).split("\n")).toEqual([
    "shop-1 (100000) would be put back to the backup of 2026-11-26T00:00:00Z, 1h old.",
    "Lost: what was written since; 1 newer backup stays.",
    "Its size, plan and address stay as they are, and it would run afterwards.",
    ...told,
  ]);
  const newPod = {
    hostname: "copy",
    planCode: "CLOUD_POD_STARTER",
    cores: 1,
    memoryMb: 1_024,
    diskGb: 30,
    quota: { allowed: true },
    placement: { node: "pve1", summary: "pve1 has room", reasons: [] },
    price: { amount: "1.49", currency: "USD", per: "month" },
  };
  const made = [
    "copy would be made of the backup of shop-1 (100000) of 2026-11-26T00:00:00Z, 1h old; there is 1 newer backup.",
    "Size:  CLOUD_POD_STARTER (1 core, 1 GB, 30 GB)",
    "Quota: allows it",
    "Place: pve1; pve1 has room",
    "Price: 1.49 USD per month",
  ];
  expect(renderRestorePlan({ ...plan, newPod }).split("\n")).toEqual([...made, ...told]);
  const nowhere = { ...newPod, placement: { node: null, summary: "no host has room", reasons: [] }, price: null };
  expect(renderRestorePlan({ ...plan, newPod: nowhere, newerBackups: 0, commands: [] }).split("\n")).toEqual([
    made[0]?.replace(/; there .*/u, "."),
    ...made.slice(1, 3),
    "Place: none; no host has room",
    "Nothing was changed.",
  ]);
});
